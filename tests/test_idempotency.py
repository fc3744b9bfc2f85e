"""The persistence layer's three suites, by their documented names and calls."""

from datetime import UTC, datetime, timedelta

import pytest
from nexmdm import settings
from nexmdm.database import Database
from nexmdm.models import ApkDownloadEvent, ApkVersion, DeviceHeartbeat, FcmDispatch
from nexmdm.persistence import (
    cleanup_old_apk_downloads,
    cleanup_old_fcm_dispatches,
    cleanup_old_heartbeats,
    record_heartbeat_with_bucketing,
    run_all_retention_cleanups,
)
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

DEVICE = "test_device_001"
DAY = 86_400


@pytest.fixture
def session(db: Database):
    db.execute("INSERT INTO devices (id, alias) VALUES (%(id)s, 'lobby')", {"id": DEVICE})
    engine = create_engine(settings.load().sqlalchemy_url)
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_heartbeat_time_bucketing(session: Session, db: Database):
    # A bucket of a day: the test cannot straddle a boundary but at midnight, and a bucket of 10 s often would.
    first = record_heartbeat_with_bucketing(session, DEVICE, {"status": "ok", "battery_pct": 85}, DAY)
    second = record_heartbeat_with_bucketing(
        session, DEVICE, {"status": "ok", "battery_pct": 84}, bucket_seconds=86_400
    )

    assert first["created"] is True
    assert second["created"] is False
    assert second["heartbeat"].hb_id == first["heartbeat"].hb_id
    assert second["heartbeat"].battery_pct == 85
    assert second["last_status_updated"] is True
    # Durable when the call returns: another connection sees the one row.
    assert db.execute("SELECT count(*) AS n FROM device_heartbeats") == [{"n": 1}]
    assert session.query(DeviceHeartbeat).count() == 1


def old_and_new(session: Session) -> None:
    """Of each kind one row that is past its time and one that is not."""
    now = datetime.now(UTC)
    session.add(ApkVersion(id=1, version_name="1", version_code=1, file_path="x", file_size=1, state="adopted"))
    session.flush()
    for days, name in ((3, "old"), (1, "new")):
        at = now - timedelta(days=days)
        session.add(DeviceHeartbeat(device_id=DEVICE, ts=at))
        session.add(
            FcmDispatch(request_id=name, device_id=DEVICE, action="ping", sent_at=at, expires_at=at, state="sent")
        )
    for days in (8, 6):
        session.add(ApkDownloadEvent(build_id=1, source="manual", admin_user="me", ts=now - timedelta(days=days)))
    session.commit()


def test_retention_cleanup(session: Session, db: Database):
    old_and_new(session)

    assert cleanup_old_heartbeats(session, retention_days=2) == 1
    assert cleanup_old_fcm_dispatches(session, retention_days=2) == 1
    assert cleanup_old_apk_downloads(session, retention_days=7) == 1
    assert cleanup_old_heartbeats(session) == cleanup_old_fcm_dispatches(session) == 0
    # Durable when the call returns: another connection sees what is left.
    for table in ("device_heartbeats", "fcm_dispatches", "apk_download_events"):
        assert db.execute(f"SELECT count(*) AS n FROM {table}") == [{"n": 1}]


def test_retention_cleanup_all_at_once(session: Session):
    old_and_new(session)
    assert run_all_retention_cleanups(session) == {"heartbeats": 1, "fcm_dispatches": 1, "apk_downloads": 1}
    assert run_all_retention_cleanups(session) == {"heartbeats": 0, "fcm_dispatches": 0, "apk_downloads": 0}


def test_retention_cleanup_goes_on_after_a_failure(session: Session, db: Database):
    old_and_new(session)
    db.execute("ALTER TABLE fcm_dispatches RENAME TO hidden")
    with pytest.raises(ExceptionGroup, match="'heartbeats': 1, 'apk_downloads': 1") as raised:
        run_all_retention_cleanups(session)
    assert raised.value.exceptions[0].__notes__ == ["in the cleanup of fcm_dispatches"]
