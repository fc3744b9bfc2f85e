"""Commands for devices: accepted once per request_id, shown, cancelled, acknowledged.

Sending is `queue`; bulk commands are `batches`. Zero rows from a guarded UPDATE are an answer, not an error.
"""

import time
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

import msgspec

from nexmdm.commands.actions import SECRETS
from nexmdm.devices.registry import AUTHENTICATED, authenticated, token_id
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.database import Executor, Row, elapsed_ms
from nexmdm.runtime.errors import Conflict, NotFound, PayloadMismatch, Sending, UnknownDevice
from nexmdm.runtime.pagination import Page, PageQuery, page

State = Literal["accepted", "sending", "sent", "failed", "retry_wait", "unknown", "expired", "cancelled"]


class Command(msgspec.Struct, frozen=True):
    """What an operator asks for; equal commands have equal hashes.

    Attributes:
        target: {"device_id": ...} or {"selector": ...}, canonical.
        params: validated, defaults applied.
    """

    request_id: str
    target: dict[str, Any]
    action: str
    params: dict[str, Any]
    ttl_seconds: int
    by: str

    @property
    def payload_hash(self) -> str:
        document = {**self.target, "action": self.action, "params": self.params, "ttl_seconds": self.ttl_seconds}
        return sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()

    @property
    def payload(self) -> dict[str, Any]:
        """The parameters as people may see them: secrets are masked."""
        return {name: "***" if name in self._secret_names else value for name, value in self.params.items()}

    @property
    def secrets(self) -> dict[str, Any] | None:
        return {name: self.params[name] for name in self.params if name in self._secret_names} or None

    @property
    def _secret_names(self) -> set[str]:
        return SECRETS.get(self.action, set())

    def message(self, device_id: str, request_id: str) -> Row:
        """As `messages.build` takes it, for one of its devices."""
        return {
            "request_id": request_id,
            "device_id": device_id,
            "action": self.action,
            "payload": self.payload,
            "secrets": self.secrets,
        }

    def columns(self) -> dict[str, Any]:
        """The parameters of the statements that insert it."""
        return {
            "request_id": self.request_id,
            "action": self.action,
            "payload_hash": self.payload_hash,
            "payload": msgspec.json.encode(self.payload).decode(),
            "secrets": msgspec.json.encode(self.secrets).decode() if self.secrets else None,
            "ttl_seconds": self.ttl_seconds,
            "by": self.by,
        }


def accept(db: Executor, command: Command) -> tuple[Row, bool]:
    """Store the command for its one device, once per request_id; returns its row and whether it is new.

    A request_id that is known costs one round trip.

    Raises:
        PayloadMismatch: the request_id stands for something else.
        Sending: it is being sent at this moment; ask again.
        UnknownDevice: there is no such device.
    """
    start = time.perf_counter()
    device_id = command.target["device_id"]
    found = db.execute(_FIND, {"request_id": command.request_id}, repeatable=True)
    if not found:
        # Not repeatable: after a lost answer a second run would take our own row for somebody else's. A caller may.
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


def show(db: Executor, request_id: str) -> Row:
    """One dispatch as it stands.

    Raises:
        NotFound: there is none.
    """
    rows = db.execute(_SHOW, {"request_id": request_id}, repeatable=True)
    if not rows:
        raise NotFound(f"There is no command {request_id!r}.")
    return rows[0]


class CommandsQuery(PageQuery, kw_only=True):
    """Filters of the list of commands; `batch` is the request_id of a bulk command."""

    state: State | None = None
    device_id: str | None = None
    batch: str | None = None


def list_commands(db: Executor, query: CommandsQuery) -> Page:
    """A page of commands, newest first."""
    created_at, request_id = query.after(datetime, str)
    conditions = [_FILTERS[name] for name in _FILTERS if getattr(query, name) is not None]
    if created_at is not None:
        conditions.append("(created_at, request_id) < (%(created_at)s::timestamptz, %(request_id)s)")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = db.execute(
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
    return page(rows, query.limit, ("created_at", "request_id"))


def cancel(db: Executor, request_id: str, by: str) -> Row:
    """Cancel a command that is not being sent and not settled. Cancelling it once more changes nothing.

    Raises:
        NotFound: there is none.
        Sending: it is being sent at this moment.
        Conflict: it is settled.
    """
    start = time.perf_counter()
    cancelled = db.execute(_CANCEL, {"request_id": request_id, "by": by}, repeatable=True)
    row = show(db, request_id)
    if cancelled:
        logs.db_operation("update", "fcm_dispatches", {"request_id": request_id, "cancelled_by": by}, elapsed_ms(start))
    elif row["state"] == "sending":
        raise Sending
    elif row["state"] != "cancelled":
        raise Conflict(f"The command is {row['state']}; only what may still be sent can be cancelled.")
    return row


def was_resent(row: Row, key: str) -> bool:
    """Whether the resend that `key` stands for was done: an operator's retry after a lost answer is not another one."""
    return any(entry.get("key") == key for entry in row["audit"])


def refuse_resend(row: Row) -> Conflict:
    """Why a dispatch that `queue.claim_again` did not take cannot be sent again, in words."""
    if row["state"] == "sending":
        return Sending()
    if row["completed_at"] is not None:
        return Conflict("The device has answered this command. Send a new one.")
    if row["state"] in ("accepted", "retry_wait"):
        return Conflict(f"The command is {row['state']}: it will be sent by itself.")
    if row["state"] == "cancelled":
        return Conflict("The command was cancelled. Send a new one.")
    if row["created_by"] is None:
        return Conflict("It was sent by other code, so its parameters are not known here. Send a new command.")
    if row["secrets_wiped"]:
        return Conflict("Its secret parameters were wiped when it was settled. Send a new command.")
    return Conflict("The device has no FCM token now, or was deleted.")


class Report(msgspec.Struct):
    """What a device says of a command it ran: `result` is the agent's own word, `message` its explanation."""

    request_id: str
    result: str | None
    message: str | None = None


def acknowledge(db: Executor, token: str, report: Report, claimed_device_id: str | None = None) -> tuple[str, bool]:
    """Record the device's answer once; returns the device's id and whether there is such a command of this device.

    The answer may come before the sender has recorded its own, in any order, any number of times; the first one stays.
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


def _replay(row: Row, command: Command, start: float) -> Row:
    stored_hash = row.pop("payload_hash")
    logs.db_operation("idempotency_hit", "fcm_dispatches", {"request_id": command.request_id}, elapsed_ms(start))
    if stored_hash != command.payload_hash:
        raise PayloadMismatch(command.request_id)
    if row["state"] == "sending":
        raise Sending
    metrics.count("IdempotencyHit")
    return row


_COLUMNS = """request_id, device_id, action, payload AS params, state, attempts, created_at, created_by, expires_at,
    sent_at, next_at, fcm_status, fcm_message_id, http_code, latency_ms, error_msg, completed_at, result,
    result_message, batch_id, audit, coalesce(secrets = '{}'::jsonb, false) AS secrets_wiped"""
_SELECT = f"SELECT {_COLUMNS} FROM fcm_dispatches"
_SHOW = f"{_SELECT} WHERE request_id = %(request_id)s"
_FIND = f"SELECT {_COLUMNS}, payload_hash FROM fcm_dispatches WHERE request_id = %(request_id)s"
_FILTERS = {"state": "state = %(state)s", "device_id": "device_id = %(device_id)s", "batch": "batch_id = %(batch)s"}

_FIND_BATCH = "SELECT request_id FROM command_batches WHERE request_id = %(request_id)s"

# Whoever takes a name does it alone: the statement that follows in the same message, and so in the same transaction,
# sees what those before it have committed. No further round trip.
HOLD_NAME = "SELECT pg_advisory_xact_lock(hashtextextended('nexmdm.command ' || %(request_id)s, 0));"

_ACCEPT = f"""{HOLD_NAME}
INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, payload, secrets, created_by, state,
    created_at, sent_at, expires_at)
SELECT %(request_id)s, id, %(action)s, %(payload_hash)s, %(payload)s::jsonb, %(secrets)s::jsonb, %(by)s, 'accepted',
    clock_timestamp(), clock_timestamp(), clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
FROM devices WHERE id = %(device_id)s AND deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM command_batches WHERE request_id = %(request_id)s)
ON CONFLICT (request_id) DO NOTHING
RETURNING request_id
"""

# What may still be sent and is not being sent now; whoever runs it says of which dispatches.
CANCEL = """
UPDATE fcm_dispatches SET state = 'cancelled', next_at = NULL,
    secrets = CASE WHEN secrets IS NOT NULL THEN '{}'::jsonb END,
    audit = audit || jsonb_build_object('event', 'cancel', 'from', state, 'by', %(by)s, 'at', clock_timestamp())
WHERE state IN ('accepted', 'retry_wait', 'unknown')"""
_CANCEL = f"{CANCEL} AND request_id = %(request_id)s RETURNING request_id"

# What an answer of the device does to its dispatch, `f`. Nothing moves out of failed and cancelled; everything else is
# `sent` now, also when the sender has not recorded its own answer yet.
COMPLETED = """
    state = CASE WHEN f.state IN ('failed', 'cancelled') THEN f.state ELSE 'sent' END,
    lease_until = NULL,
    next_at = NULL,
    secrets = CASE WHEN f.secrets IS NOT NULL THEN '{}'::jsonb END,
    completed_at = clock_timestamp()"""

_ACKNOWLEDGE = f"""
WITH {AUTHENTICATED}, own AS (
    SELECT f.request_id FROM fcm_dispatches f JOIN device ON device.id = f.device_id
    WHERE f.request_id = %(request_id)s AND device.deleted_at IS NULL AND device.id = coalesce(%(claimed)s, device.id)
), completed AS (
    UPDATE fcm_dispatches f SET {COMPLETED}, result = %(result)s, result_message = %(message)s
    FROM own WHERE f.request_id = own.request_id AND f.completed_at IS NULL
    RETURNING f.request_id
)
SELECT id AS device_id, deleted_at IS NOT NULL AS deleted,
    EXISTS (SELECT FROM own) AS known, EXISTS (SELECT FROM completed) AS first
FROM device
"""
