"""Structured JSON logs. One record per database operation, never a secret, nothing carried over between calls."""

import json
import logging
import sys
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count, islice
from traceback import extract_tb
from typing import Any, TextIO

import msgspec
from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

from nexmdm.runtime.errors import Named
from nexmdm.runtime.settings import SettingsError

MOST_NAMED = 20  # of what a device's request holds, in one record
SLOW_HEARTBEAT_MS = 150.0  # the service level that the documents set for a heartbeat
_SERVICE = "nexmdm"
# `location` would name a function of this module, and `service` is the same in every record of a stack's log group.
_LEFT_OUT = frozenset(("location", "service", "asctime", "exc_text"))
# What Powertools' own form of a record begins with. Lambda makes a trace id for every call, but without tracing it
# leads nowhere, and with it X-Ray finds a call by the request's id.
_FIRST = {"level": "%(levelname)s", "message": None, "timestamp": "%(asctime)s", "xray_trace_id": None}
_STANDARD = len(logging.makeLogRecord({}).__dict__)
_encode = msgspec.json.Encoder(enc_hook=str).encode
_ordinary = count()


class Formatter(LambdaPowertoolsFormatter):
    """Powertools' formatter for a record of text and fields: one pass over its attributes, encoded by msgspec.

    Powertools itself copies a record's attributes four times and tries to read each message as JSON. It still writes
    what is not of that form: a record with arguments, with an exception, or whose message is no text.
    """

    def __init__(self) -> None:
        super().__init__(json_serializer=_serialized, utc=True, use_rfc3339=True, location=None)

    def format(self, record: logging.LogRecord) -> str:
        if record.args or record.exc_info or type(record.msg) is not str:
            return super().format(record)
        fields = {
            **self.log_format,
            **self.thread_safe_get_current_keys(),
            # What came with the record stands behind its standard attributes.
            **dict(islice(record.__dict__.items(), _STANDARD, None)),
            "level": record.levelname,
            "message": record.msg,
            "timestamp": datetime.fromtimestamp(record.created, UTC),
        }
        return _serialized(
            {name: value for name, value in fields.items() if value is not None and name not in _LEFT_OUT}
        )


def _serialized(document: Any) -> str:
    try:
        return _encode(document).decode()
    except (TypeError, ValueError, OverflowError):
        # What msgspec does not encode: keys of other types, whole numbers of more than 64 bits.
        return json.dumps(document, default=str, separators=(",", ":"))


@lru_cache(maxsize=1)
def _formatter() -> Formatter:
    return Formatter()


class _Output(logging.StreamHandler[TextIO]):
    """StreamHandler in one step: a heartbeat's record is most of what Python does for it besides the statement."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.stream.write(self.format(record) + "\n")
            self.stream.flush()
        except Exception:
            self.handleError(record)


@lru_cache(maxsize=1)
def logger() -> Logger:
    return Logger(service=_SERVICE, logger_formatter=_formatter(), logger_handler=_Output(sys.stdout))


def begin(request_id: str, function: str) -> None:
    """Start the record of one invocation: what the call before appended is gone."""
    logger()
    _formatter().log_format = {**_FIRST, "function_request_id": request_id, "function": _short(function)}


@lru_cache
def _short(function: str) -> str:
    """The function's name in the template: CloudFormation puts the stack's name before it and a suffix behind."""
    parts = function.split("-")
    return parts[-2] if len(parts) > 2 else function


def heartbeat(event: str, keys: Mapping[str, object], latency_ms: float, sample: int) -> None:
    """The record of a heartbeat's operation, of one in `sample` when it is an ordinary one."""
    if sample == 1 or latency_ms > SLOW_HEARTBEAT_MS or next(_ordinary) % sample == 0:
        db_operation(event, "device_heartbeats", keys, latency_ms)


def db_operation(event: str, entity: str, keys: Mapping[str, object], latency_ms: float) -> None:
    """One record for one database operation.

    Args:
        event: create, update, delete, cleanup, idempotency_hit or dedup_hit.
        entity: the table.
        keys: what identifies the rows; never a secret.
        latency_ms: milliseconds, rounded to 0.01.
    """
    latency_ms = round(latency_ms, 2)
    slow = entity == "device_heartbeats" and event in ("create", "dedup_hit") and latency_ms > SLOW_HEARTBEAT_MS
    level = logging.WARNING if slow else logging.INFO
    log = _log()
    if log.isEnabledFor(level):
        record = _record(level)
        record.msg = f"db_operation event={event} entity={entity} keys={keys} latency_ms={latency_ms}"
        record.__dict__ |= {"event": event, "entity": entity, "keys": keys, "latency_ms": latency_ms}
        log.handle(record)


@lru_cache
def _log() -> logging.Logger:
    logger()
    return logging.getLogger(_SERVICE)


@lru_cache
def _prepared(level: int) -> dict[str, object]:
    return _log().makeRecord(_SERVICE, level, __file__, 0, "", (), None, "db_operation").__dict__


def _record(level: int) -> logging.LogRecord:
    """A record as Logger.makeRecord makes it, without asking again for the process, the thread and the source file."""
    record = object.__new__(logging.LogRecord)
    now = time.time()
    record.__dict__ |= _prepared(level)
    record.created = now
    record.msecs = now % 1 * 1000
    return record


def refused(route: str, status: int, title: str) -> None:
    """A device's request was refused. Not with its details: they quote what it sent."""
    logger().info("refused", extra={"route": route, "status": status, "title": title})


def device_id_mismatch(device_id: str, claimed: Collection[str]) -> None:
    """Bodies name other devices than their token does; the token counts. One record, however many they are."""
    logger().warning(
        "device_id in the body is not the token's",
        extra={"device_id": device_id, "claimed": min(claimed)[:64], "claimed_count": len(claimed)},
    )


def values_dropped(device_id: str | None, paths: list[str]) -> None:
    """Reports held values that fit nowhere: one record that names the first fields, never the values."""
    fields = sorted(set(paths))[:MOST_NAMED]
    logger().warning("reported values dropped", extra={"device_id": device_id, "fields": fields, "count": len(paths)})


def outage(error: BaseException) -> None:
    """Record why the database did not serve.

    With libpq's own words where there is no SQLSTATE: it has not sent or read a value then, and never tells a password.
    """
    sqlstate = getattr(error, "pgcode", None)
    reason = None if sqlstate else str(error).strip()
    logger().warning(
        "database outage", extra={"error": type(error).__qualname__, "sqlstate": sqlstate, "reason": reason}
    )


def failure(error: BaseException) -> None:
    """Record an unexpected error by its type and where it was raised.

    Not by its text: texts of drivers and parsers quote values, and a value may be a secret. Those of `Named` do not.
    """
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)[-8:]]
    diagnosis = getattr(error, "diag", None)
    logger().error(
        "unexpected error",
        extra={
            "error": type(error).__qualname__,
            "setting": str(error) if isinstance(error, SettingsError) else None,
            "reason": str(error) if isinstance(error, Named) and not isinstance(error, SettingsError) else None,
            "sqlstate": getattr(error, "pgcode", None),
            "constraint": getattr(diagnosis, "constraint_name", None),
            "stack": frames,
        },
    )
