"""Bulk commands: one statement makes the batch and one dispatch per device; the selector is evaluated once."""

import time

import msgspec
from msgspec import Struct

from nexmdm.commands.actions import ACTIONS
from nexmdm.commands.single import CANCEL, Command, Count, Selected
from nexmdm.commands.states import Answered, Delivery, DispatchState
from nexmdm.devices import targets
from nexmdm.devices.filters import Condition
from nexmdm.devices.targets import ExpectedTargets, Selector
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, elapsed_ms, statement
from nexmdm.runtime.errors import Invalid, NotFound, PayloadMismatch
from nexmdm.runtime.validation import Instant


def accept(
    db: Executor, command: Command[Selected], interval_seconds: float, *, expect_target_hash: str | None = None
) -> bool:
    """Store the batch and a dispatch for every device it selects, once per request_id; returns whether it is new.

    A request_id that is known is answered before the filter is looked at.

    Args:
        command: its selector is one of `nexmdm.devices.targets.canonical`.
        expect_target_hash: of a preview; it is no part of what the request_id stands for.

    Raises:
        PayloadMismatch: the request_id stands for something else.
        Invalid: an id is no device's, there is no such group, or the filter selects no device. Nothing was stored.
        TargetsChanged: the filter selects other devices than the caller saw. Nothing was stored.
    """
    start = time.perf_counter()
    if _replayed(db, command, start):
        return False
    chosen = command.target.selector
    wanted = msgspec.convert({**chosen, "expect_target_hash": expect_target_hash}, ExpectedTargets)
    condition = targets.condition(db, wanted, interval_seconds)
    parameters = {
        **condition.parameters,
        **command.columns(),
        "selector": msgspec.json.encode(chosen).decode(),
        "filter": targets.filter_json(wanted),
        "expect_target_hash": expect_target_hash,
    }
    answer = db.execute(HOLD_NAME + _ACCEPT.replace("{where}", condition.sql), parameters)[0]
    if answer["made"]:
        keys = {"request_id": command.request_id, "devices": answer["device_count"], "action": command.action}
        logs.db_operation("create", "command_batches", keys, elapsed_ms(start))
        metrics.count("CommandAccepted")
        return True
    if _replayed(db, command, start):
        # Another call with the same request_id came first.
        return False
    targets.refuse(wanted, answer)
    if not answer["device_count"]:
        raise Invalid("$.filter", "selects no device")
    # A single command of this name was there first.
    raise PayloadMismatch(command.request_id)


class InstallTarget(Struct, frozen=True):
    """Which devices an installation is for: these, or the first `percent` of the devices that a build is offered to."""

    build_id: int
    percent: int
    offered_to: Condition
    device_ids: list[str] | None = None


class Asked(Struct, frozen=True):
    """What became of asking.

    Attributes:
        made: whether there is a batch now; without one nobody was asked.
        devices: how many were asked.
        cohort_devices: how many the target has: some of them run the build, were asked, or run a newer one.
        newer_devices: how many of them run a newer version, over which Android installs no lower one.
    """

    made: bool
    devices: int
    cohort_devices: int
    newer_devices: int


def accept_installations(
    tx: Executor, command: Command[Selected], target: InstallTarget, download_url: str, agent_package: str
) -> Asked:
    """The same for install_apk: an installation for each device of the target, and a command that names it.

    Asked are those that do not report the build's version or a newer one, and were not asked within a command's life.

    Raises:
        PayloadMismatch: the request_id stands for something else.
        NotFound: one of the named devices is not there.
    """
    start = time.perf_counter()
    replayed = _replayed(tx, command, start)
    parameters = {
        **command.columns(),
        "selector": msgspec.json.encode(command.target.selector).decode(),
        "build_id": target.build_id,
        "percent": target.percent,
        "device_ids": target.device_ids,
        "download_url": download_url,
        "agent_package": agent_package,
        **target.offered_to.parameters,
    }
    sql = _ACCEPT_INSTALLATIONS.replace("{where}", target.offered_to.sql)
    answer = tx.execute(HOLD_NAME + sql, parameters)[0]
    if replayed:
        # What is answered beside the batch is how it is now.
        return Asked(True, answer["selected"], answer["cohort"], answer["newer"])
    if answer["missing"]:
        raise NotFound(f"There is no device {answer['missing'][0]!r}. Nobody was asked.")
    if answer["selected"] and not answer["made"]:
        raise PayloadMismatch(command.request_id)
    keys = {"request_id": command.request_id, "devices": answer["selected"], "action": command.action}
    logs.db_operation("create", "command_batches", keys, elapsed_ms(start))
    metrics.count("CommandAccepted")
    return Asked(answer["made"], answer["selected"], answer["cohort"], answer["newer"])


class Batch(Struct, forbid_unknown_fields=True, kw_only=True):
    """A bulk command with a count of its members for each state. `delivery` is that of its members."""

    request_id: str
    action: str | None
    delivery: Delivery | None
    answered: Answered | None
    device_count: Count
    selector: Selector
    created_by: str
    created_at: Instant
    states: dict[DispatchState, int]


def show(db: Executor, request_id: str) -> Batch | None:
    """A batch with its device_count and `states`, a count for each state; None when there is no such batch."""
    rows = db.execute(_SHOW, {"request_id": request_id}, repeatable=True)
    if not rows:
        return None
    action = ACTIONS.get(rows[0]["action"])
    return msgspec.convert({**rows[0], "answered": action and action.answered}, Batch)


def cancel(db: Executor, request_id: str, actor: Actor) -> int:
    """Cancel those of the batch's dispatches that may still be sent and are not being sent now; returns how many."""
    start = time.perf_counter()
    parameters = {"request_id": None, "batch_id": request_id, "name": request_id, **actor.parameters()}
    rows = db.execute(CANCEL, parameters, repeatable=True)
    keys = {"request_id": request_id, "cancelled": len(rows), "by": actor.name}
    logs.db_operation("update", "fcm_dispatches", keys, elapsed_ms(start))
    return len(rows)


def replayed(db: Executor, command: Command[Selected]) -> bool:
    """Whether the batch of this request_id is there already.

    Raises:
        PayloadMismatch: the request_id stands for something else.
    """
    return _replayed(db, command, time.perf_counter())


def _replayed(db: Executor, command: Command[Selected], start: float) -> bool:
    found = db.execute(_FIND, {"request_id": command.request_id}, repeatable=True)
    if not found:
        return False
    logs.db_operation("idempotency_hit", "command_batches", {"request_id": command.request_id}, elapsed_ms(start))
    if not command.equals(found[0]["payload_hash"], found[0]["secrets"]):
        raise PayloadMismatch(command.request_id)
    metrics.count("IdempotencyHit")
    return True


# Its members have the same secrets, as long as any of them holds its own.
_FIND = """
SELECT payload_hash,
    (SELECT secrets FROM fcm_dispatches WHERE batch_id = b.request_id AND secrets <> '{}'::jsonb LIMIT 1) AS secrets
FROM command_batches b WHERE b.request_id = %(request_id)s
"""

# Those who use the same name take turns: the statement that follows in the same message, and so in the same
# transaction, sees what those before it have committed. No further round trip.
HOLD_NAME = "SELECT pg_advisory_xact_lock(hashtextextended('nexmdm.command ' || %(request_id)s, 0));"

_ACCEPT = statement(__package__, "accept_batch")

_ACCEPT_INSTALLATIONS = statement(__package__, "accept_installations")

_SHOW = """
SELECT b.request_id, b.device_count, b.selector, b.created_by, b.created_at, member.action, member.delivery,
    (SELECT coalesce(json_object_agg(state, n), '{}') FROM (
        SELECT state, count(*) AS n FROM fcm_dispatches WHERE batch_id = b.request_id GROUP BY state) AS s) AS states
FROM command_batches b
LEFT JOIN LATERAL (SELECT action, delivery FROM fcm_dispatches WHERE batch_id = b.request_id LIMIT 1) member ON true
WHERE b.request_id = %(request_id)s
"""
