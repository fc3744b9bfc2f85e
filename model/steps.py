"""The steps that tests run on the real database, selected from the model's state graph: model/steps.txt."""

import hashlib
import os
import random
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from model import spin
from model.spin import Row, Run, Step

FILE = spin.HERE / "steps.txt"
TABLE = tomllib.loads((spin.HERE / "transitions.toml").read_text())
TRANSITIONS = {entry["step"]: entry for entry in TABLE["transition"]}
STATES = ("none", "accepted", "sending", "sent", "failed", "retry_wait", "unknown", "expired", "cancelled")
# Steps that are statements, which can be tried on every row.
STATEMENTS = ("claim", "repeat", "resend", "end_lease", "expire", "forget_secrets", "cancel", "acknowledge", "retire")
# Statements that do the work of two transitions at once.
TOGETHER = ({"claim", "repeat"}, {"expire", "forget_secrets"})
# Counters; rows that differ only in these are equivalent for every statement.
COUNTERS = ("fence", "attempts", "refused", "resends", "repeats", "restored")
# `fcm`: FCM may still deliver the message.
COMING = 1
GRAPH = Run(
    "the graph", {"SENDERS": 1, "ATTEMPTS": 2, "RESENDS": 1, "CLIENTS": 1, "TOKENS": 2, "FOREIGN": 1, "RETENTIONS": 1}
)
RESTORED = Run(
    "the graph after a restore",
    {"SENDERS": 1, "ATTEMPTS": 2, "RESENDS": 0, "CLIENTS": 1, "TOKENS": 1, "TAKEOVERS": 0, "RESTORES": 1},
)
WALKED = Run(
    "walks", {"SENDERS": 2, "ATTEMPTS": 6, "RESENDS": 2, "CLIENTS": 1, "TOKENS": 4, "TAKEOVERS": 1, "RESTORES": 1}
)
SINGLE = {*TRANSITIONS}


class Steps(NamedTuple):
    """Steps for the tests.

    Attributes:
        digest: of the model that they were selected from.
        single: one step each, from an inserted row.
        refused: statements tried on a row for which the model has no such step; they must change nothing.
        walks: from an empty table, step by step.
    """

    digest: str
    single: list[Step]
    refused: list[Step]
    walks: list[list[Step]]


def chosen(seed: int, *, walks: int, most: int | None = None) -> Steps:
    """Select steps of the model's state graph, one for all steps with the same effect on equivalent rows.

    Args:
        seed: determines which of several equivalent rows is selected, and which are omitted.
        most: the number of steps of a kind, identified by name, argument, and the states before and after.
    """
    graph = spin.edges(GRAPH)
    restored = {step for step in spin.edges(RESTORED) if step.name == "after_restore"}
    steps = sorted(step for step in graph | restored if step.name in SINGLE)
    refused = _refused(graph, seed)
    steps, refused = _one_of_each(steps, seed, most), _one_of_each(refused, seed, most)
    return Steps(
        digest=hashlib.sha256(spin.MODEL.read_bytes()).hexdigest(),
        single=steps,
        refused=refused,
        walks=spin.walks(WALKED, seed, walks),
    )


def _one_of_each(steps: list[Step], seed: int, most: int | None) -> list[Step]:
    shuffled = list(steps)
    random.Random(seed).shuffle(shuffled)  # noqa: S311
    alike = {(step.name, _argument(step), _alike(step.before), step.after.state): step for step in shuffled}
    kinds: dict[tuple[Any, ...], list[Step]] = {}
    for step in alike.values():
        kinds.setdefault(
            (step.name, _argument(step), step.before.state, step.after.state, step.before == step.after), []
        ).append(step)
    return sorted(step for kind in kinds.values() for step in kind[:most])


def _argument(step: Step) -> tuple[int, ...]:
    if step.name == "settle":
        _command, _sender, answer, fence, token = step.arguments
        return (answer, fence == step.before.fence, token == step.before.token)
    return step.arguments[2:] if step.name == "accept" else ()


def _alike(row: Row) -> Row:
    return row._replace(**dict.fromkeys(COUNTERS, 0), keys=row.keys != 0, token=row.token != 0, payload=0)


def _refused(graph: set[Step], seed: int) -> list[Step]:
    """Statements on rows for which the model has no such step, unless a bound of the search is the reason."""
    possible = {(step.name, step.before) for step in graph}
    bounds = GRAPH.bounds
    found = []
    for row in {step.before for step in graph if step.before.state}:
        for name in STATEMENTS:
            both = next((group for group in TOGETHER if name in group), {name})
            if any((other, row) in possible for other in both) or name == "acknowledge":
                continue
            # Retention removes one row in the search, and none that a sender has claimed.
            if name == "retire" and _is_over(row):
                continue
            claims = name in ("claim", "repeat", "resend")
            if claims and (row.attempts >= bounds["ATTEMPTS"] or (name == "resend" and row.keys)):
                continue
            found.append(Step(name, (0, 0, 0, 0, 0), row, row))
    return sorted(found)


def _is_over(row: Row) -> bool:
    """can_retire of the model."""
    ended = STATES[row.state] in {"sent", "failed", "unknown", "expired", "cancelled"}
    return bool(ended and row.over and row.fcm != COMING)


def write(steps: Steps, file: Path = FILE) -> None:
    """Store the steps for tests, which then do not need SPIN."""
    lines = [steps.digest, "# single", *(step.line() for step in steps.single)]
    lines += ["# refused", *(step.line() for step in steps.refused)]
    for walk in steps.walks:
        lines += ["# walk", *(step.line() for step in walk)]
    file.write_text("\n".join(lines) + "\n")


@cache
def stored() -> Steps:
    """Load the steps for tests; MODEL_STEPS can name a different file."""
    digest, *lines = Path(os.environ.get("MODEL_STEPS", FILE)).read_text().splitlines()
    parts: list[tuple[str, list[Step]]] = []
    for line in lines:
        if line.startswith("# "):
            parts.append((line[2:], []))
        else:
            parts[-1][1].append(Step.read(line))
    single, refused, *walks = (steps for _, steps in parts)
    return Steps(digest, single, refused, walks)
