"""The three suites of the persistence layer, by their documented names and calls."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nexmdm.devices.registry import token_id
from nexmdm.persistence import (
    cleanup_old_apk_downloads,
    cleanup_old_fcm_dispatches,
    cleanup_old_heartbeats,
    record_fcm_dispatch,
    record_fcm_result,
    record_heartbeat_with_bucketing,
    run_all_retention_cleanups,
)
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import NotFound, UnknownDevice
from nexmdm.schema.models import ApkDownloadEvent, ApkVersion, DeviceHeartbeat, FcmDispatch
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from functions.fcm_dispatch.handler import sweep
from local.fcm import FakeFcm
from tests.support.api import CONTEXT, call
from tests.support.fcm import running_fake
from tests.support.races import errors, race

DEVICE = "test_device_001"
DAY = 86_400


@pytest.fixture
def session(db: Database):
    db.execute("INSERT INTO devices (id, alias) VALUES (%(id)s, 'lobby')", {"id": DEVICE})
    engine = create_engine(settings.load().sqlalchemy_url)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def fake_fcm(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFcm]:
    with running_fake(monkeypatch) as fake_fcm:
        yield fake_fcm


def dispatched(session: Session, request_id: str = "req-1", device_id: str = DEVICE, **given: Any) -> dict[str, Any]:
    given = {"action": "ping", "payload_hash": "abc123", "fcm_status": "pending", **given}
    return record_fcm_dispatch(session, request_id=request_id, device_id=device_id, **given)


def test_fcm_dispatch_idempotency(session: Session, db: Database):
    first = dispatched(session)
    second = dispatched(session, action="reboot", payload_hash="other")

    assert (first["created"], second["created"]) == (True, False)
    assert second["dispatch"].request_id == "req-1"
    assert (second["dispatch"].action, second["dispatch"].payload_hash) == ("ping", "abc123")
    # Durable when the call returns, claimed under a lease, and no transaction is open while FCM is called.
    assert db.execute("SELECT state, fence, lease_until > now() AS lease FROM fcm_dispatches") == [
        {"state": "sending", "fence": 1, "lease": True}
    ]
    assert first["dispatch"].fcm_status == "pending"
    assert db.execute(IDLE_IN_TRANSACTION) == [{"n": 0}]


IDLE_IN_TRANSACTION = """
SELECT count(*) AS n FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%%'
"""


@pytest.mark.parametrize("status", ["sent", "failed", "unknown"])
def test_result_settles_a_dispatch_once(session: Session, db: Database, status: str):
    dispatched(session)
    row = record_fcm_result(session, "req-1", status, "m-1", 200, 12, None, "{}")
    assert (row.state, row.fcm_status, row.fcm_message_id, row.http_code) == (status, status, "m-1", 200)
    assert row.lease_until is None
    assert db.execute(IDLE_IN_TRANSACTION) == [{"n": 0}]
    if status != "unknown":
        again = record_fcm_result(session, "req-1", "unknown", "m-2")
        assert (again.state, again.fcm_message_id) == (status, "m-1")


def test_first_of_16_sessions_holds_the_claim(session: Session, url: str):
    engine = create_engine(settings.load().sqlalchemy_url, pool_size=16)

    def run(_db: Database) -> bool:
        with Session(engine) as own:
            answer = dispatched(own)
            assert answer["dispatch"].request_id == "req-1"
            return answer["created"]

    for opened in [engine.connect() for _ in range(16)]:
        opened.close()
    answers = race(url, *[run] * 16)
    engine.dispose()
    assert errors(answers) == []
    assert sorted(answers) == [False] * 15 + [True]


def test_sweep_never_sends_dispatches_of_the_caller(session: Session, db: Database, fake_fcm: FakeFcm):
    db.execute("UPDATE devices SET fcm_token = 'fcm:lobby'")
    dispatched(session)
    assert sweep({}, CONTEXT)["sent"] == 0
    db.execute("UPDATE fcm_dispatches SET lease_until = now() - interval '1 second'")
    report = sweep({}, CONTEXT)
    assert (report["unknown"], report["expired"], report["sent"]) == (1, 0, 0)
    sweep({}, CONTEXT)
    assert db.execute("SELECT state FROM fcm_dispatches") == [{"state": "unknown"}]
    assert fake_fcm.requests() == []
    # A late holder may still report what it knows.
    assert record_fcm_result(session, "req-1", "sent", "m-1").state == "sent"


def test_dispatch_of_the_caller_is_never_sent_again(session: Session, db: Database, fake_fcm: FakeFcm):
    """The server does not know its parameters, so no heartbeat lists it and no operator can resend it."""
    dispatched(session)
    record_fcm_result(session, "req-1", "unknown")
    db.execute("UPDATE devices SET fcm_token = 'fcm:lobby', token_id = %(id)s", {"id": token_id("the device's")})

    assert call("POST", "/v1/heartbeat", {}, token="the device's").json["pending_commands"] == []
    call("POST", "/v1/commands/req-1/resend", {"reason": "no answer"}).problem(409)
    assert fake_fcm.requests() == []


def test_missing_device_and_dispatch_are_named(session: Session, db: Database):
    with pytest.raises(UnknownDevice):
        dispatched(session, device_id="nobody")
    with pytest.raises(NotFound):
        record_fcm_result(session, "nothing", "sent")
    with pytest.raises(ValueError, match="fcm_status"):
        record_fcm_result(session, "req-1", "maybe")
    assert db.execute("SELECT count(*) AS n FROM fcm_dispatches") == [{"n": 0}]
    # The session is still usable.
    assert dispatched(session)["created"] is True


def test_heartbeat_time_bucketing(session: Session, db: Database):
    # With a bucket of one day, the test can cross a boundary only at midnight; with 10 s it often would.
    first = record_heartbeat_with_bucketing(session, DEVICE, {"status": "ok", "battery_pct": 85}, DAY)
    second = record_heartbeat_with_bucketing(
        session, DEVICE, {"status": "ok", "battery_pct": 84}, bucket_seconds=86_400
    )

    assert first["created"] is True
    assert second["created"] is False
    assert second["heartbeat"].hb_id == first["heartbeat"].hb_id
    assert second["heartbeat"].battery_pct == 85
    assert second["last_status_updated"] is True
    # Durable when the call returns: another connection sees the single row.
    assert db.execute("SELECT count(*) AS n FROM device_heartbeats") == [{"n": 1}]
    assert session.query(DeviceHeartbeat).count() == 1


def old_and_new(session: Session) -> None:
    """Insert one row of each kind that is past its retention, and one that is not."""
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
    # Durable when the call returns: another connection sees the remaining rows.
    for table in ("device_heartbeats", "fcm_dispatches", "apk_download_events"):
        assert db.execute(f"SELECT count(*) AS n FROM {table}") == [{"n": 1}]


def test_retention_cleanup_all_at_once(session: Session):
    old_and_new(session)
    assert run_all_retention_cleanups(session) == {"heartbeats": 1, "fcm_dispatches": 1, "apk_downloads": 1}
    assert run_all_retention_cleanups(session) == {"heartbeats": 0, "fcm_dispatches": 0, "apk_downloads": 0}


def test_retention_cleanup_continues_after_a_failure(session: Session, db: Database):
    old_and_new(session)
    db.execute("ALTER TABLE fcm_dispatches RENAME TO hidden")
    with pytest.raises(ExceptionGroup, match="'heartbeats': 1, 'apk_downloads': 1") as raised:
        run_all_retention_cleanups(session)
    assert raised.value.exceptions[0].__notes__ == ["in the cleanup of fcm_dispatches"]
