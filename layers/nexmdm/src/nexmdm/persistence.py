"""The persistence layer's documented calls, for code that brings a SQLAlchemy `Session`.

Each call is durable when it returns, logs one `db_operation` record and does what the functions do: the same SQL, the
same constraints.
"""

from typing import Any

from sqlalchemy.orm import Session

from nexmdm import heartbeats, settings, wire
from nexmdm.database import SessionDatabase
from nexmdm.heartbeat_body import HeartbeatBody
from nexmdm.models import DeviceHeartbeat


def record_heartbeat_with_bucketing(
    db: Session, device_id: str, heartbeat_data: dict[str, Any], bucket_seconds: int = 10
) -> dict[str, Any]:
    """Record a heartbeat, at most one row per device and bucket.

    Args:
        heartbeat_data: the flat form (status, battery_pct, plugged, ...) or the agent's nested one.
        bucket_seconds: 1..86400.

    Returns:
        created (bool), heartbeat (the bucket's row) and last_status_updated (bool).

    Raises:
        UnknownDevice: there is no such device.
        Invalid: a field does not hold what it should.
    """
    if not 1 <= bucket_seconds <= 86_400:
        raise ValueError(f"bucket_seconds is {bucket_seconds}; it must be 1..86400")
    config = settings.load()
    report = wire.convert(heartbeat_data, HeartbeatBody, root="heartbeat_data").report(config.unity_package)
    recorded = heartbeats.record_for_device(SessionDatabase(db), device_id, [report], config, bucket_seconds)
    row = db.query(DeviceHeartbeat).filter_by(device_id=device_id, bucket=recorded.buckets[0]).one()
    return {
        "created": bool(recorded.created),
        "heartbeat": row,
        "last_status_updated": recorded.last_status_updated,
    }
