"""model/transitions.toml, the model and the code name the same transitions."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from model import steps

ROOT = Path(__file__).resolve().parents[3]
LAYER = ROOT / "layers/nexmdm/src/nexmdm"
FUNCTIONS = ROOT / "migrations/sql"
# Retention deletes from any table by one statement, delete_batch.sql. This names the table and the due rows in it.
DUE = re.compile(r"_Due\(\s*\"fcm_dispatches\"")
WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM|MERGE INTO)\s+(?:ONLY\s+)?fcm_dispatches\b")


def written() -> set[str]:
    """Every statement that writes the table, as its file and what it does."""
    found = set()
    for path in [*LAYER.rglob("*.py"), *LAYER.rglob("*.sql"), *_functions(), *(ROOT / "functions").rglob("*.py")]:
        folder = next(parent for parent in (LAYER, FUNCTIONS, ROOT) if path.is_relative_to(parent))
        text = re.sub(r"--.*", "", path.read_text())
        found |= {f"{path.relative_to(folder)} {match[1].split()[0]}" for match in WRITES.finditer(text)}
        found |= {f"{path.relative_to(folder)} due" for _ in DUE.finditer(text)}
    return found


def _functions() -> Iterator[Path]:
    """The newest version of each function of the schema; older versions serve the previous release."""
    newest: dict[str, tuple[int, Path]] = {}
    for path in FUNCTIONS.glob("*.sql"):
        name, _, version = path.stem.rpartition("_v")
        newest[name] = max(newest.get(name, (0, path)), (int(version), path))
    yield from (path for _, path in newest.values())


def test_every_statement_that_writes_a_dispatch_is_a_transition():
    named = {statement for entry in steps.TABLE["transition"] for statement in entry["statements"]}
    assert written() == named


@pytest.mark.parametrize("step", steps.TRANSITIONS)
def test_each_transition_names_a_callable(step: str):
    module, _, name = steps.TRANSITIONS[step]["python"].partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("step", steps.TRANSITIONS)
def test_each_transition_has_the_documented_target(step: str):
    moves = {
        (steps.STATES[taken.before.state], steps.STATES[taken.after.state])
        for taken in steps.stored().single
        if taken.name == step
        and taken.before[:-1] != taken.after[:-1]
        # Setting a row that keeps its state in a restore is not a transition of the state machine.
        and (step != "after_restore" or taken.before.state != taken.after.state)
    }
    entry = steps.TRANSITIONS[step]
    before, after = ({move[n] for move in moves} for n in (0, 1))
    assert (before, after) == (set(entry["from"]), set(entry["to"]))
