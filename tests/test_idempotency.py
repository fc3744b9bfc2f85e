"""The persistence layer's three suites, by their documented names and calls."""

import pytest
from nexmdm import settings
from nexmdm.database import Database
from nexmdm.models import DeviceHeartbeat
from nexmdm.persistence import record_heartbeat_with_bucketing
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
