"""Commands for devices: accepted once per request_id, shown, cancelled, acknowledged.

Sending is `queue`; bulk commands are `batches`. Zero rows from a guarded UPDATE are an answer, not an error.
"""

import time
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from nexmdm.activity.events import Change
from nexmdm.commands.actions import ACTIONS, Params, check_delivery, secret_names
from nexmdm.commands.message import Content
from nexmdm.commands.states import Answered, Delivery, DispatchState
from nexmdm.devices.registry import AUTHENTICATED, authenticated, token_id
from nexmdm.devices.targets import Selector
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, Row, elapsed_ms, statement
from nexmdm.runtime.errors import Conflict, NotFound, PayloadMismatch, Sending, UnknownDevice
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.validation import Instant

MASK = "***"
Count = Annotated[int, Meta(ge=0)]
# Not `$`: in Python that lets a newline through. The server's own are `:`, for members of a batch, and the prefixes
# `schedule.` and `relaunch.`, for what the sweep makes.
RequestId = Annotated[str, Meta(pattern=r"^(?!(?:schedule|relaunch)\.)[A-Za-z0-9._-]{1,63}(?![\s\S])")]


class OneDevice(msgspec.Struct, frozen=True):
    """The target of a command for one device."""

    device_id: str


class Selected(msgspec.Struct, frozen=True):
    """The target of a bulk command."""

    selector: Selector


Target = TypeVar("Target", bound=OneDevice | Selected)


class Command(msgspec.Struct, Generic[Target], frozen=True):
    """What an operator asks for; equal commands have equal hashes and secrets.

    Attributes:
        params: validated, defaults applied.
    """

    request_id: str
    target: Target
    action: str
    params: Params
    ttl_seconds: int
    actor: Actor
    delivery: Delivery = Delivery.AT_MOST_ONCE

    def __post_init__(self) -> None:
        check_delivery(self.action, self.delivery)

    @property
    def payload_hash(self) -> str:
        """Covers the parameters with secrets masked: it outlives them, and a password could be guessed from it."""
        document = {
            **msgspec.structs.asdict(self.target),
            "action": self.action,
            "params": self.payload,
            "ttl_seconds": self.ttl_seconds,
        }
        if self.delivery is not Delivery.AT_MOST_ONCE:
            document["delivery"] = self.delivery
        return sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()

    @property
    def payload(self) -> Params:
        """The parameters as people may see them: secrets are masked."""
        hidden = secret_names(self.action)
        return {name: MASK if name in hidden else value for name, value in self.params.items()}

    @property
    def event(self) -> Change:
        """What the event log says of it: nothing that only the result's own route shows."""
        hidden = secret_names(self.action) | ACTIONS[self.action].parameters.HIDDEN
        shown = {name: MASK if name in hidden else value for name, value in self.params.items()}
        return {
            "action": self.action,
            "params": shown,
            "ttl_seconds": self.ttl_seconds,
            "delivery": self.delivery,
        }

    @property
    def secrets(self) -> Params | None:
        return {name: self.params[name] for name in self.params if name in secret_names(self.action)} or None

    def equals(self, payload_hash: str | None, secrets: Params | None) -> bool:
        """Whether a stored command is this one: by its hash, and by its secrets while the database holds them."""
        same = compare_digest(payload_hash or "", self.payload_hash)
        return same and (not secrets or compare_digest(_canonical(secrets), _canonical(self.secrets)))

    def message(self, device_id: str, request_id: str) -> Content:
        """The message content for one of its devices."""
        return Content(
            request_id=request_id,
            device_id=device_id,
            action=self.action,
            payload=self.payload,
            secrets=self.secrets,
        )

    def columns(self) -> dict[str, object]:
        """The parameters of the statements that insert it."""
        return {
            "request_id": self.request_id,
            "action": self.action,
            "payload_hash": self.payload_hash,
            "payload": msgspec.json.encode(self.payload).decode(),
            "secrets": msgspec.json.encode(self.secrets).decode() if self.secrets else None,
            "delivery": self.delivery.value,
            "ttl_seconds": self.ttl_seconds,
            "by": self.actor.name,
            "event": msgspec.json.encode(self.event).decode(),
            **self.actor.parameters(),
        }


class AuditEntry(msgspec.Struct, kw_only=True):
    """Who did what and when; further members depend on the event: cancel, resend, repeat, take-over, restore."""

    event: str
    by: str | None = None
    at: Instant
    from_: DispatchState | msgspec.UnsetType = msgspec.field(name="from", default=msgspec.UNSET)
    reason: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType | None = msgspec.UNSET


class Dispatch(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A command for one device. Secret parameters are masked; `sent_at` is when it was accepted or last sent.

    `answered` says whether and when the existing agent answers the action. Shell commands and their output are shown
    only by GET /v1/commands/{request_id}/result; `answer_withheld` says that there is an answer. `fence` counts claims
    (a takeover and a restore increment it too). `refused` counts claims whose message FCM certainly did not accept; it
    is null for commands that a release before 2026-11-28 accepted.
    """

    request_id: str
    device_id: str
    action: str
    params: Params
    state: DispatchState
    delivery: Delivery
    answered: Answered | None
    fence: Count
    attempts: Count
    refused: Count | None
    created_at: Instant
    created_by: str | None
    expires_at: Instant
    sent_at: Instant
    next_at: Instant | None
    fcm_status: str
    fcm_message_id: str | None
    http_code: int | None
    latency_ms: int | None
    error_msg: str | None
    completed_at: Instant | None
    result: str | None
    result_message: str | None
    answer_withheld: bool
    batch_id: str | None
    audit: list[AuditEntry]
    secrets_wiped: bool


class CommandResult(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A device's command and its answer, in full. Secret parameters stay masked."""

    request_id: str
    device_id: str
    action: str
    params: Params
    state: DispatchState
    completed_at: Instant | None
    result: str | None
    result_message: str | None


def accept(db: Executor, command: Command[OneDevice]) -> tuple[Dispatch, bool]:
    """Store a command for one device, once per request_id; return its dispatch and whether it is new.

    A known request_id costs one round trip.

    Raises:
        PayloadMismatch: the request_id belongs to another command.
        Sending: it is being sent at this moment; try again.
        UnknownDevice: there is no such device.
    """
    start = time.perf_counter()
    device_id = command.target.device_id
    found = db.execute(_FIND, {"request_id": command.request_id}, repeatable=True)
    if not found:
        # Not repeatable: after a lost response, a second run would mistake our own row for another caller's.
        if db.execute(_ACCEPT, {**command.columns(), "device_id": device_id}):
            keys = {"request_id": command.request_id, "device_id": device_id, "action": command.action}
            logs.db_operation("create", "fcm_dispatches", keys, elapsed_ms(start))
            metrics.count("CommandAccepted")
            return show(db, command.request_id), True
        found = db.execute(_FIND, {"request_id": command.request_id}, repeatable=True)
        if not found and db.execute(_FIND_BATCH, {"request_id": command.request_id}, repeatable=True):
            raise PayloadMismatch(command.request_id)
        if not found:
            raise UnknownDevice(f"There is no device {device_id!r}.")
    return _replay(found[0], command, start), False


def show(db: Executor, request_id: str) -> Dispatch:
    """The current state of one dispatch.

    Raises:
        NotFound: there is no such command.
    """
    rows = db.execute(_SHOW, {"request_id": request_id}, repeatable=True)
    if not rows:
        raise NotFound(f"There is no command {request_id!r}.")
    return _dispatch(rows[0])


def result(db: Executor, request_id: str) -> CommandResult:
    """The command and the device's answer, in full.

    Raises:
        NotFound: there is no such command for one device.
    """
    rows = db.execute(_RESULT, {"request_id": request_id}, repeatable=True)
    if not rows:
        raise NotFound(f"There is no command {request_id!r} for one device.")
    return msgspec.convert(rows[0], CommandResult)


class CommandsQuery(PageQuery, kw_only=True):
    """Filters of the list of commands; `batch` is the request_id of a bulk command."""

    state: DispatchState | None = None
    device_id: str | None = None
    batch: str | None = None


def list_commands(db: Executor, query: CommandsQuery) -> Page[Dispatch]:
    """A page of commands, newest first."""
    created_at, request_id = query.after(datetime, str)
    conditions = [_FILTERS[name] for name in _FILTERS if getattr(query, name) is not None]
    if created_at is not None:
        conditions.append("(created_at, request_id) < (%(created_at)s::timestamptz, %(request_id)s)")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    found = db.execute(
        f"{_SELECT} {where} ORDER BY created_at DESC, request_id DESC LIMIT %(limit)s",
        {
            "state": query.state,
            "device_id": query.device_id,
            "batch": query.batch,
            "created_at": created_at,
            "request_id": request_id,
            "limit": query.limit + 1,
        },
        repeatable=True,
    )
    return page([_dispatch(row) for row in found], query.limit, KEY)


def cancel(db: Executor, request_id: str, actor: Actor) -> Dispatch:
    """Cancel a command that may still be sent and is not being sent now. Cancelling it again changes nothing.

    Raises:
        NotFound: there is no such command.
        Sending: it is being sent at this moment.
        Conflict: it is settled.
    """
    start = time.perf_counter()
    parameters = {"request_id": request_id, "batch_id": None, "name": request_id, **actor.parameters()}
    cancelled = db.execute(CANCEL, parameters, repeatable=True)
    row = show(db, request_id)
    if cancelled:
        logs.db_operation(
            "update", "fcm_dispatches", {"request_id": request_id, "cancelled_by": actor.name}, elapsed_ms(start)
        )
    elif row.state is DispatchState.SENDING:
        raise Sending
    elif row.state is not DispatchState.CANCELLED:
        raise Conflict(f"The command is {row.state}; only a command that may still be sent can be cancelled.")
    return row


def was_resent(row: Dispatch, key: str) -> bool:
    """Whether the resend with this `key` was already made; a retry after a lost response must not resend again."""
    return any(entry.key == key for entry in row.audit)


def refuse_resend(db: Executor, request_id: str) -> Conflict:
    """The problem that explains why `queue.claim_again` did not claim a dispatch."""
    row = show(db, request_id)
    if row.state is DispatchState.SENDING:
        return Sending()
    if row.completed_at is not None:
        return Conflict("The device has answered this command. Send a new one.")
    if row.state in (DispatchState.ACCEPTED, DispatchState.RETRY_WAIT):
        return Conflict(f"The command is {row.state}: it will be sent automatically.")
    if row.state is DispatchState.CANCELLED:
        return Conflict("The command was cancelled. Send a new one.")
    if row.created_by is None:
        return Conflict("The command was not sent by NexMDM, so its parameters are not known. Send a new command.")
    if row.secrets_wiped:
        return Conflict("The command's secret parameters were wiped when it was settled. Send a new command.")
    build_id = row.params.get("apk_id") if row.action == "install_apk" else None
    if build_id is not None and db.execute(_PAUSED_BUILD, {"build_id": build_id}, repeatable=True):
        return Conflict(f"Build {build_id}, which it installs, is paused. Resume its rollout first.")
    return Conflict("The device has no FCM token, or was deleted.")


class Report(msgspec.Struct):
    """A device's report on a command that it ran: `result` is the agent's own term, `message` its explanation."""

    request_id: str
    result: str | None
    message: str | None = None


def acknowledge(db: Executor, token: str, report: Report, claimed_device_id: str | None = None) -> tuple[str, bool]:
    """Record a device's answer once; return the device's id and whether the device has such a command.

    An answer may arrive before the sender has recorded FCM's response, and any number of times; the first one is kept.
    """
    start = time.perf_counter()
    parameters = {
        "token_id": token_id(token),
        "claimed": claimed_device_id,
        "request_id": report.request_id,
        "result": report.result,
        "message": report.message,
    }
    row = authenticated(db.execute(_ACKNOWLEDGE, parameters, repeatable=True))
    keys = {"request_id": report.request_id, "device_id": row["device_id"], "result": report.result}
    logs.db_operation("update" if row["first"] else "idempotency_hit", "fcm_dispatches", keys, elapsed_ms(start))
    return row["device_id"], row["known"]


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _replay(row: Row, command: Command[OneDevice], start: float) -> Dispatch:
    stored_hash, secrets = row.pop("payload_hash"), row.pop("secrets")
    logs.db_operation("idempotency_hit", "fcm_dispatches", {"request_id": command.request_id}, elapsed_ms(start))
    if not command.equals(stored_hash, secrets):
        raise PayloadMismatch(command.request_id)
    if row["state"] == DispatchState.SENDING:
        raise Sending
    metrics.count("IdempotencyHit")
    return _dispatch(row)


def _dispatch(row: Row) -> Dispatch:
    """The row for operators, without the values that only the result route shows."""
    action = ACTIONS.get(row["action"])
    withheld = action is not None and action.private_answer and row["result_message"] is not None
    hidden = action.parameters.HIDDEN if action else ()
    return msgspec.convert(
        {
            **row,
            "params": {name: MASK if name in hidden else value for name, value in row["params"].items()},
            "answered": action and action.answered,
            "result_message": None if withheld else row["result_message"],
            "answer_withheld": withheld,
        },
        Dispatch,
    )


KEY = ("created_at", "request_id")
_COLUMNS = """request_id, device_id, action, payload AS params, state, delivery, fence, attempts, refused, created_at,
    created_by, expires_at, sent_at, next_at, fcm_status, fcm_message_id, http_code, latency_ms, error_msg,
    completed_at, result, result_message, batch_id, audit, coalesce(secrets = '{}'::jsonb, false) AS secrets_wiped"""
_SELECT = f"SELECT {_COLUMNS} FROM fcm_dispatches"
_SHOW = f"{_SELECT} WHERE request_id = %(request_id)s"
_FIND = f"SELECT {_COLUMNS}, secrets, payload_hash FROM fcm_dispatches WHERE request_id = %(request_id)s"
_RESULT = """
SELECT request_id, device_id, action, payload AS params, state, completed_at, result, result_message
FROM fcm_dispatches WHERE request_id = %(request_id)s
"""
_FILTERS = {"state": "state = %(state)s", "device_id": "device_id = %(device_id)s", "batch": "batch_id = %(batch)s"}

_PAUSED_BUILD = "SELECT id FROM apk_versions WHERE id = %(build_id)s AND paused_at IS NOT NULL"
_FIND_BATCH = "SELECT request_id FROM command_batches WHERE request_id = %(request_id)s"

CANCEL = statement(__package__, "cancel")
_ACCEPT = statement(__package__, "accept")
_ACKNOWLEDGE = f"""
WITH {AUTHENTICATED}, own AS (
    SELECT f.request_id FROM fcm_dispatches f JOIN device ON device.id = f.device_id
    WHERE f.request_id = %(request_id)s AND device.deleted_at IS NULL AND device.id = coalesce(%(claimed)s, device.id)
)
SELECT id AS device_id, deleted_at IS NOT NULL AS deleted, EXISTS (SELECT FROM own) AS known,
    coalesce((SELECT complete_command_v1(own.request_id, device.id, %(result)s, %(message)s) FROM own), false) AS first
FROM device
"""
