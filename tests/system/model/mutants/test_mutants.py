"""Removing a protection from the model yields a counterexample. Its steps do the harm in code without the protection,
and do none in the code as it is. Needs SPIN: `make prove MUTATE=1`."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from nexmdm.commands import queue
from nexmdm.commands.single import Command
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from functions.fcm_dispatch import fcm
from model import mutants
from model.mutants import Mutant
from tests.system.model.machine import Machine
from tests.system.model.mutants.replay import Replay


def client_retries(_patch: pytest.MonkeyPatch) -> None:
    """Behave as firebase-admin's own client, which sends a message four more times after a 503."""
    retries = Retry(status=4, status_forcelist=[500, 503], raise_on_status=False, allowed_methods=None)
    for prefix in ("http://", "https://", "https://fcm.googleapis.com"):
        fcm.service().session.mount(prefix, HTTPAdapter(max_retries=retries))


def unknown_is_retried(patch: pytest.MonkeyPatch) -> None:
    send = fcm.send

    def retried(*arguments: Any, **how: Any) -> Any:
        result = send(*arguments, **how)
        if result.outcome == "unknown":
            result.outcome = "retry_wait"
        return result

    patch.setattr(fcm, "send", retried)


def every_payload_is_equal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Command, "equals", lambda *_: True)


def no_after_restore(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(queue, "after_restore", lambda *_: 0)


DONE: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    function.__name__: function
    for function in (client_retries, unknown_is_retried, every_payload_is_equal, no_after_restore)
}


def apply(patch: pytest.MonkeyPatch, mutant: Mutant, machine: Machine) -> None:
    for change in mutant.patch:
        if "do" in change:
            DONE[change["do"]](patch)
            continue
        module, _, name = change["statement"].partition(":")
        text = getattr(import_module(module), name)
        start = text.index(change.get("after", ""))
        assert change["old"] in text[start:], f"the statement no longer says {change['old']!r}"
        changed = text[:start] + text[start:].replace(change["old"], change["new"])
        patch.setattr(import_module(module), name, changed)
    if mutant.constraint:
        machine.db.execute(f"ALTER TABLE fcm_dispatches DROP CONSTRAINT ck_fcm_dispatches_{mutant.constraint}")


@pytest.mark.parametrize("mutant", mutants.load(), ids=lambda mutant: mutant.name)
def test_mutant_is_killed(mutant: Mutant, machine: Machine, url: str):
    verdict = mutant.counterexample()
    assert verdict.violated, "the model did not detect the missing protection"
    ways = " ".join(step.name for step in verdict.trail)

    as_it_is = Replay(machine, url, uncommitted=False)
    # A step that the code refuses ends the replay: there is no claim to send.
    refused = None
    try:
        as_it_is.take(verdict.trail)
    except (KeyError, AssertionError) as error:
        refused = error
    assert not getattr(as_it_is, mutant.evidence)(), f"the unchanged code does the harm: {ways} ({refused!r})"
    as_it_is.close()

    machine.reset()
    changed = Replay(machine, url, mutant.uncommitted)
    with pytest.MonkeyPatch.context() as patch:
        apply(patch, mutant, machine)
        changed.take(verdict.trail)
        assert getattr(changed, mutant.evidence)(), f"no {mutant.evidence} with: {ways}"
    changed.close()
    print(f"\nkilled: {mutant.name}: {verdict.violated}, in code {mutant.evidence}: {ways}")
