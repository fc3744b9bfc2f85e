"""Structured JSON logs: one record per database operation, never a secret, no state kept between invocations."""

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

MOST_NAMED = 20  # maximum of names from a device's request in one record
SLOW_HEARTBEAT_MS = 150.0  # the service level that the documents set for a heartbeat
_SERVICE = "nexmdm"
# `location` would name a function of this module, and `service` is the same in every record of a stack's log group.
_LEFT_OUT = frozenset(("location", "service", "asctime", "exc_text"))
# The first members of Powertools' own records. Lambda's trace id is left out: without tracing it leads nowhere, and
# with tracing X-Ray finds a call by its request id.
_FIRST = {"level": "%(levelname)s", "message": None, "timestamp": "%(asctime)s", "xray_trace_id": None}
_STANDARD = len(logging.makeLogRecord({}).__dict__)
_encode = msgspec.json.Encoder(enc_hook=str).encode
_ordinary = count()


class Formatter(LambdaPowertoolsFormatter):
    """Replaces Powertools' formatter for plain records with fields: one pass over the attributes, encoded by msgspec.

    Powertools copies a record's attributes four times and tries to parse each message as JSON. Its formatter is still
    used for other records: those with arguments, with an exception, or whose message is not text.
    """

    def __init__(self) -> None:
        super().__init__(json_serializer=_serialized, utc=True, use_rfc3339=True, location=None)

    def format(self, record: logging.LogRecord) -> str:
        if record.args or record.exc_info or type(record.msg) is not str:
            return super().format(record)
        fields = {
            **self.log_format,
            **self.thread_safe_get_current_keys(),
            # The record's own fields come after its standard attributes.
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
        # msgspec cannot encode it: keys of other types, integers of more than 64 bits.
        return json.dumps(document, default=str, separators=(",", ":"))


@lru_cache(maxsize=1)
def _formatter() -> Formatter:
    return Formatter()


class _Output(logging.StreamHandler[TextIO]):
    """A StreamHandler that writes in one step, because logging takes most of a heartbeat's time in Python."""

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
    """Start the log of one invocation; removes the keys that the previous one appended."""
    logger()
    _formatter().log_format = {**_FIRST, "function_request_id": request_id, "function": _short(function)}


@lru_cache
def _short(function: str) -> str:
    """The function's name in the template, without the stack's name and the suffix that CloudFormation adds."""
    parts = function.split("-")
    return parts[-2] if len(parts) > 2 else function


def heartbeat(event: str, keys: Mapping[str, object], latency_ms: float, sample: int) -> None:
    """Log a heartbeat's operation; of ordinary ones only one in `sample`."""
    if sample == 1 or latency_ms > SLOW_HEARTBEAT_MS or next(_ordinary) % sample == 0:
        db_operation(event, "device_heartbeats", keys, latency_ms)


def db_operation(event: str, entity: str, keys: Mapping[str, object], latency_ms: float) -> None:
    """Log one database operation.

    Args:
        event: create, update, delete, cleanup, idempotency_hit or dedup_hit.
        entity: the table.
        keys: the values that identify the rows; never a secret.
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
    """A record as from Logger.makeRecord, without looking up the process, the thread and the source file again."""
    record = object.__new__(logging.LogRecord)
    now = time.time()
    record.__dict__ |= _prepared(level)
    record.created = now
    record.msecs = now % 1 * 1000
    return record


def refused(route: str, status: int, title: str) -> None:
    """Log that a device's request was rejected, without details, which quote the request."""
    logger().info("refused", extra={"route": route, "status": status, "title": title})


def device_id_mismatch(device_id: str, claimed: Collection[str]) -> None:
    """Log, in one record, that bodies name devices other than the token's; the token takes precedence."""
    logger().warning(
        "device_id in the body is not the token's",
        extra={"device_id": device_id, "claimed": min(claimed)[:64], "claimed_count": len(claimed)},
    )


def values_dropped(device_id: str | None, paths: list[str]) -> None:
    """Log, in one record, that reports had invalid values: the first fields, never the values."""
    fields = sorted(set(paths))[:MOST_NAMED]
    logger().warning("reported values dropped", extra={"device_id": device_id, "fields": fields, "count": len(paths)})


def outage(error: BaseException) -> None:
    """Log why the database was not available.

    Includes libpq's message if there is no SQLSTATE: then no value was sent or read, and libpq does not quote
    passwords.
    """
    sqlstate = getattr(error, "pgcode", None)
    reason = None if sqlstate else str(error).strip()
    logger().warning(
        "database outage", extra={"error": type(error).__qualname__, "sqlstate": sqlstate, "reason": reason}
    )


def failure(error: BaseException) -> None:
    """Log an unexpected error with its type and where it was raised.

    Its text is omitted, because drivers and parsers quote values, which may be secrets; only the text of `Named` errors
    is safe.
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
