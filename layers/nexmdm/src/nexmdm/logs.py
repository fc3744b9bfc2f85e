"""Structured JSON logs. One record per database operation, never a secret, nothing carried over between calls."""

import logging
from datetime import UTC, datetime
from functools import lru_cache
from traceback import extract_tb

import msgspec
from aws_lambda_powertools import Logger

from nexmdm.settings import SettingsError

SERVICE = "nexmdm"
SLOW_HEARTBEAT_MS = 150.0  # the service level that the documents set for a heartbeat


@lru_cache(maxsize=1)
def logger() -> Logger:
    return Logger(service=SERVICE, utc=True)


# What the records of this invocation have in common.
_invocation: dict[str, str] = {}


def begin(request_id: str, function: str) -> None:
    """Start the record of one invocation: what the call before appended is gone."""
    _invocation.update(function_request_id=request_id, function=function)
    logger().clear_state()
    logger().append_keys(**_invocation)


def db_operation(event: str, entity: str, keys: dict[str, object], latency_ms: float) -> None:
    """One record for one database operation.

    Args:
        event: create, update, delete, cleanup, idempotency_hit or dedup_hit.
        entity: the table.
        keys: what identifies the rows; never a secret.
        latency_ms: milliseconds, rounded to 0.01.
    """
    latency_ms = round(latency_ms, 2)
    message = f"db_operation event={event} entity={entity} keys={keys} latency_ms={latency_ms}"
    fields = {"event": event, "entity": entity, "keys": keys, "latency_ms": latency_ms}
    if entity == "device_heartbeats" and event in ("create", "dedup_hit") and latency_ms > SLOW_HEARTBEAT_MS:
        logger().warning(message, extra=fields)
    else:
        _info(message, fields)


def _info(message: str, fields: dict[str, object]) -> None:
    """As the logger would write it, without passing through it.

    Every heartbeat writes this one record. Through logging and Powertools it takes 20 us when nothing else runs and 80
    between two statements, more than all else that a heartbeat is for Python; `make bench` shows it in the throughput.
    """
    if not logger().isEnabledFor(logging.INFO):
        return
    now = datetime.now(UTC)
    record = {
        "level": "INFO",
        "location": "db_operation",
        "message": message,
        "timestamp": f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03}+0000",
        "service": SERVICE,
        **_invocation,
        **fields,
    }
    trace = logger().registered_formatter._get_latest_trace_id()
    if trace is not None:
        record["xray_trace_id"] = trace
    stream = logger().registered_handler.stream
    stream.write(msgspec.json.encode(record, enc_hook=str).decode() + "\n")
    stream.flush()


def device_id_mismatch(device_id: str, claimed: str) -> None:
    """The body names another device than its token does; the token counts."""
    logger().warning("device_id in the body is not the token's", extra={"device_id": device_id, "claimed": claimed})


def failure(error: BaseException) -> None:
    """Record an unexpected error by its type and where it was raised.

    Not by its text: texts of drivers and parsers quote values, and a value may be a secret. A SettingsError does not.
    """
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)[-8:]]
    diagnosis = getattr(error, "diag", None)
    logger().error(
        "unexpected error",
        extra={
            "error": type(error).__qualname__,
            "setting": str(error) if isinstance(error, SettingsError) else None,
            "sqlstate": getattr(error, "pgcode", None),
            "constraint": getattr(diagnosis, "constraint_name", None),
            "stack": frames,
        },
    )
