"""Bulk commands: one statement creates the batch and one dispatch per device; the filter is evaluated once."""

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
    """Store a batch and a dispatch for each selected device, once per request_id; return whether it is new.

    A known request_id is answered before the filter is evaluated.

    Args:
        command: its selector is one of `nexmdm.devices.targets.canonical`.
        expect_target_hash: of a preview; it is not compared when a request_id is repeated.

    Raises:
        PayloadMismatch: the request_id belongs to another command.
        Invalid: there is no such device or group, or the filter selects no device. Nothing was stored.
        TargetsChanged: the filter selects other devices than in the preview. Nothing was stored.
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
        # A concurrent call with the same request_id was first.
        return False
    targets.refuse(wanted, answer)
    if not answer["device_count"]:
        raise Invalid("$.filter", "selects no device")
    # A single command with this request_id already exists.
    raise PayloadMismatch(command.request_id)


class InstallTarget(Struct, frozen=True):
    """The devices of an installation: these, or the first `percent` of the devices that a build is offered to."""

    build_id: int
    percent: int
    offered_to: Condition
    device_ids: list[str] | None = None


class Asked(Struct, frozen=True):
    """The result of asking devices to install a build.

    Attributes:
        made: whether a batch exists; if not, no device was asked.
        devices: how many were asked.
        cohort_devices: how many the target has, including those that run the build or a newer one, or were already
        asked. newer_devices: how many of them run a newer version, which Android does not replace with a lower one.
    """

    made: bool
    devices: int
    cohort_devices: int
    newer_devices: int


def accept_installations(
    tx: Executor, command: Command[Selected], target: InstallTarget, download_url: str, agent_package: str
) -> Asked:
    """The same for install_apk: create an installation for each device of the target, and a command that refers to it.

    Devices are skipped if they report the build's version or a newer one, or were asked within a command's time to
    live.

    Raises:
        PayloadMismatch: the request_id belongs to another command.
        NotFound: one of the named devices does not exist.
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
        # The counts in the response are current, not those of the first call.
        return Asked(True, answer["selected"], answer["cohort"], answer["newer"])
    if answer["missing"]:
        raise NotFound(f"There is no device {answer['missing'][0]!r}. No device was asked.")
    if answer["selected"] and not answer["made"]:
        raise PayloadMismatch(command.request_id)
    keys = {"request_id": command.request_id, "devices": answer["selected"], "action": command.action}
    logs.db_operation("create", "command_batches", keys, elapsed_ms(start))
    metrics.count("CommandAccepted")
    return Asked(answer["made"], answer["selected"], answer["cohort"], answer["newer"])


class Batch(Struct, forbid_unknown_fields=True, kw_only=True):
    """A bulk command with the number of its dispatches in each state. `delivery` is that of its dispatches."""

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
    """A batch with its device_count and `states`, the count per state; None if there is no such batch."""
    rows = db.execute(_SHOW, {"request_id": request_id}, repeatable=True)
    if not rows:
        return None
    action = ACTIONS.get(rows[0]["action"])
    return msgspec.convert({**rows[0], "answered": action and action.answered}, Batch)


def cancel(db: Executor, request_id: str, actor: Actor) -> int:
    """Cancel the batch's dispatches that may still be sent and are not being sent now; return how many."""
    start = time.perf_counter()
    parameters = {"request_id": None, "batch_id": request_id, "name": request_id, **actor.parameters()}
    rows = db.execute(CANCEL, parameters, repeatable=True)
    keys = {"request_id": request_id, "cancelled": len(rows), "by": actor.name}
    logs.db_operation("update", "fcm_dispatches", keys, elapsed_ms(start))
    return len(rows)


def cancel_installs(tx: Executor, build_id: int, actor: Actor) -> int:
    """Cancel the install_apk commands of a build that are not sent yet, for its rollback; return how many."""
    start = time.perf_counter()
    rows = tx.execute(_CANCEL_INSTALLS, {"build_id": str(build_id), "by": actor.name})
    keys = {"build_id": build_id, "cancelled": len(rows), "by": actor.name}
    logs.db_operation("update", "fcm_dispatches", keys, elapsed_ms(start))
    return len(rows)


def replayed(db: Executor, command: Command[Selected]) -> bool:
    """Whether the batch with this request_id already exists.

    Raises:
        PayloadMismatch: the request_id belongs to another command.
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


# All dispatches of a batch have the same secrets, until they are wiped.
_FIND = """
SELECT payload_hash,
    (SELECT secrets FROM fcm_dispatches WHERE batch_id = b.request_id AND secrets <> '{}'::jsonb LIMIT 1) AS secrets
FROM command_batches b WHERE b.request_id = %(request_id)s
"""

# Serializes calls with the same request_id: the statement that follows in the same message, and so in the same
# transaction, sees what earlier calls committed. It needs no additional round trip.
HOLD_NAME = "SELECT pg_advisory_xact_lock(hashtextextended('nexmdm.command ' || %(request_id)s, 0));"

_CANCEL_INSTALLS = statement(__package__, "cancel_installs")

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
