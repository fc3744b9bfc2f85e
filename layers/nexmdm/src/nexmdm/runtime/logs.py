"""Structured JSON logs. One record per database operation, never a secret, nothing carried over between calls."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from traceback import extract_tb

from aws_lambda_powertools import Logger

from nexmdm.runtime.settings import SettingsError

MOST_NAMED = 20  # of what a device's request holds, in one record
SLOW_HEARTBEAT_MS = 150.0  # the service level that the documents set for a heartbeat


@lru_cache(maxsize=1)
def logger() -> Logger:
    return Logger(service="nexmdm", utc=True)


def begin(request_id: str, function: str) -> None:
    """Start the record of one invocation: what the call before appended is gone."""
    logger().clear_state()
    logger().append_keys(function_request_id=request_id, function=function)


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
    (logger().warning if slow else logger().info)(
        f"db_operation event={event} entity={entity} keys={keys} latency_ms={latency_ms}",
        extra={"event": event, "entity": entity, "keys": keys, "latency_ms": latency_ms},
    )


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
