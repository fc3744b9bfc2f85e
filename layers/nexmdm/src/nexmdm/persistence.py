"""The documented persistence calls, for code that has a SQLAlchemy `Session`.

Each call is committed when it returns, logs one `db_operation` record, and uses the same SQL and constraints as the
functions.
"""

from typing import Literal

from sqlalchemy.orm import Session

from nexmdm.builds import downloads
from nexmdm.commands import queue
from nexmdm.commands.queue import Answer, Result
from nexmdm.heartbeats import record
from nexmdm.heartbeats.body import Given, strictly
from nexmdm.retention import archive, export, policies
from nexmdm.runtime import settings
from nexmdm.runtime.database import SessionDatabase
from nexmdm.runtime.errors import NotFound, UnknownDevice
from nexmdm.schema.models import ApkDownloadEvent, DeviceHeartbeat, FcmDispatch


def record_fcm_dispatch(
    db: Session,
    request_id: str,
    device_id: str,
    action: str,
    payload_hash: str | None = None,
    fcm_status: str = "pending",
    retries: int = 0,
) -> dict[str, object]:
    """Claim a request_id before sending it to FCM.

    Returns:
        created (bool) and dispatch (the row). If `created` is true, the caller holds the claim: it sends the message
        now and then calls `record_fcm_result`; a row that is not settled within the lease becomes `unknown`. If
        `created` is false, another caller has claimed it: do not send.

    Raises:
        UnknownDevice: there is no such device.
    """
    own = SessionDatabase(db)
    created = queue.claim_new(
        own,
        request_id=request_id,
        device_id=device_id,
        action=action,
        payload_hash=payload_hash,
        fcm_status=fcm_status,
        retries=retries,
    )
    # The caller calls FCM next, so no transaction may stay open.
    dispatch = own.read(FcmDispatch, request_id)
    if dispatch is None:
        raise UnknownDevice(f"There is no device {device_id!r}.")
    return {"created": created, "dispatch": dispatch}


def record_fcm_result(
    db: Session,
    request_id: str,
    fcm_status: Literal["sent", "failed", "unknown"],
    fcm_message_id: str | None = None,
    http_code: int | None = None,
    latency_ms: int | None = None,
    error_msg: str | None = None,
    response_json: str | None = None,
) -> FcmDispatch:
    """Settle a claim of `record_fcm_dispatch`; return the current row. A second result changes nothing.

    Raises:
        ValueError: fcm_status is not sent, failed or unknown.
        NotFound: there is no such request_id.
    """
    if fcm_status not in ("sent", "failed", "unknown"):
        raise ValueError(f"fcm_status is {fcm_status!r}; it must be sent, failed or unknown")
    result = Result(
        outcome=fcm_status,
        fcm_status=fcm_status,
        fcm_message_id=fcm_message_id,
        http_code=http_code,
        latency_ms=latency_ms,
        error_msg=error_msg,
        response_json=response_json,
    )
    # A claim by that call has fence 1. After an operator's resend the fence is higher, and this result is too late.
    own = SessionDatabase(db)
    queue.settle(own, [Answer(request_id, 1, result)])
    dispatch = own.read(FcmDispatch, request_id)
    if dispatch is None:
        raise NotFound(f"There is no dispatch {request_id!r}.")
    return dispatch


def record_heartbeat_with_bucketing(
    db: Session, device_id: str, heartbeat_data: Given, bucket_seconds: int = 10
) -> dict[str, object]:
    """Record a heartbeat, at most one row per device and bucket.

    Args:
        heartbeat_data: the flat form (status, battery_pct, plugged, ...) or the agent's nested form.
        bucket_seconds: 1..86400.

    Returns:
        created (bool), heartbeat (the bucket's row) and last_status_updated (bool).

    Raises:
        UnknownDevice: there is no such device.
        Invalid: a field has an invalid value.
    """
    if not 1 <= bucket_seconds <= 86_400:
        raise ValueError(f"bucket_seconds is {bucket_seconds}; it must be 1..86400")
    config = settings.load()
    report = strictly(heartbeat_data, config.unity_package)
    recorded = record.for_device(SessionDatabase(db), device_id, [report], config, bucket_seconds)
    row = db.query(DeviceHeartbeat).filter_by(device_id=device_id, bucket=recorded.buckets[0]).one()
    return {
        "created": bool(recorded.created),
        "heartbeat": row,
        "last_status_updated": recorded.last_status_updated,
    }


def cleanup_old_heartbeats(db: Session, retention_days: int = 2) -> int:
    """Remove heartbeats whose time is more than `retention_days` ago; return how many."""
    own, config = SessionDatabase(db), settings.load()
    return policies.removed(
        own,
        "device_heartbeats",
        retention_days,
        lambda before: policies.heartbeats(own, before, config.heartbeat_bucket_seconds, archive.of(own, config)),
    )


def cleanup_old_fcm_dispatches(db: Session, retention_days: int = 2) -> int:
    """Remove dispatches sent more than `retention_days` ago that are settled and that FCM can no longer deliver."""
    own = SessionDatabase(db)
    return policies.removed(own, "fcm_dispatches", retention_days, lambda before: policies.dispatches(own, before))


def cleanup_old_apk_downloads(db: Session, retention_days: int = 7) -> int:
    """Remove download events more than `retention_days` old; return how many."""
    own, config = SessionDatabase(db), settings.load()
    return policies.removed(
        own, "apk_download_events", retention_days, lambda before: export.downloads(own, before, config)
    )


def run_all_retention_cleanups(db: Session) -> dict[str, int]:
    """Run the three cleanups with the retention of the settings.

    Returns:
        {"heartbeats": n, "fcm_dispatches": n, "apk_downloads": n}, the numbers of removed rows.

    Raises:
        ExceptionGroup: the errors of the cleanups that failed; the others were completed.
    """
    days = policies.retention_days(settings.load())
    counts, errors = {}, []
    for policy, cleanup in (
        ("heartbeats", cleanup_old_heartbeats),
        ("fcm_dispatches", cleanup_old_fcm_dispatches),
        ("apk_downloads", cleanup_old_apk_downloads),
    ):
        try:
            counts[policy] = cleanup(db, retention_days=days[policy])
        except Exception as error:
            error.add_note(f"in the cleanup of {policy}")
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"removed: {counts}", errors)
    return counts


def record_apk_download(
    db: Session,
    build_id: int,
    source: Literal["enrollment", "manual", "ci"],
    token_id: str | None = None,
    admin_user: str | None = None,
    ip: str | None = None,
) -> ApkDownloadEvent:
    """Record that a download URL of a build was issued; return the event.

    Args:
        token_id: of the enrollment token that was used, or
        admin_user: the operator or CI; give exactly one of the two.

    Raises:
        Invalid: both or neither of the two are given, or the source is unknown.
        NoSuchBuild: there is no such build.
        NotFound: there is no such enrollment token.
    """
    event_id = downloads.record(
        SessionDatabase(db), build_id=build_id, source=source, token_id=token_id, admin_user=admin_user, ip=ip
    )
    return db.get_one(ApkDownloadEvent, event_id)
