"""The code matches the model: the steps of model/steps.txt, taken with the code's own calls on a real PostgreSQL.

steps.txt contains every kind of step in the model's state graph, and walks through it. `make prove` writes it and tries
many more. A change of the code without the model fails here; a change of the model without the code, in `make prove`.
"""

import hashlib

import pytest
from nexmdm.commands.audit import AuditQuery, audit

from model import spin, steps
from tests.system.model.machine import UNSEEN, Machine


def test_steps_are_of_this_model():
    assert steps.stored().digest == hashlib.sha256(spin.MODEL.read_bytes()).hexdigest(), "run: make prove WRITE=1"


def test_each_kind_of_step_matches_the_model(machine: Machine):
    wrong = [text for step in steps.stored().single if (text := machine.differs(step))]
    assert not wrong, f"{len(wrong)} steps, the first: {wrong[0]}"


def test_steps_that_the_model_forbids_change_nothing(machine: Machine):
    wrong = [text for step in steps.stored().refused if (text := machine.differs(step))]
    assert not wrong, f"{len(wrong)} steps, the first: {wrong[0]}"


@pytest.mark.parametrize("number", range(len(steps.stored().walks)))
def test_walks_match_the_model(machine: Machine, number: int):
    for n, step in enumerate(steps.stored().walks[number]):
        machine.run(step)
        assert machine.row() == step.after, f"step {n}: {step.line()}"


def test_audit_accepts_every_state_of_the_model(machine: Machine):
    for row in sorted({step.before for step in steps.stored().single if step.before.state}):
        machine.put(row)
        found = audit(machine.db, AuditQuery())
        assert (found.checked, found.violations) == (1, 0), (found, row)


def test_steps_contain_every_transition():
    taken = {step.name for step in steps.stored().single}
    assert taken >= {name for name in steps.TRANSITIONS if name not in UNSEEN}
