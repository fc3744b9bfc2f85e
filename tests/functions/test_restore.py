"""A database restored from a snapshot does not know what was sent since; the documented procedure sends it never again.

The procedure is in docs/operations.md. Here a copy of the dispatches table is the snapshot, and copying it back the
restore.
"""

import pytest
from nexmdm.retention import run
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from functions.fcm_dispatch.handler import handler
from local.fcm import FakeFcm
from tests.support import agent, samples
from tests.support.api import CONTEXT, call
from tests.support.commands import enrolled, make_due, send, state, sweep


def snapshot(db: Database) -> None:
    db.execute("CREATE TABLE kept AS SELECT * FROM fcm_dispatches")


def restore(db: Database) -> None:
    db.execute("DELETE FROM fcm_dispatches")
    db.execute("INSERT INTO fcm_dispatches SELECT * FROM kept")


@pytest.fixture
def restored(db: Database, fake_fcm: FakeFcm) -> tuple[str, str]:
    """A device whose commands were open in the snapshot and were sent after it: (device_id, token)."""
    device_id, token = enrolled("lobby", "fcm:lobby")
    fake_fcm.behave("fcm:lobby", "429")
    for request_id in ("waits", "in-flight"):
        send(device_id, request_id)
    db.execute("UPDATE fcm_dispatches SET state = 'accepted', next_at = NULL WHERE request_id = 'waits'")
    snapshot(db)
    fake_fcm.behave("fcm:lobby", "200")
    fake_fcm.forget()
    make_due(db)
    assert sweep()["sent"] == 2
    restore(db)
    make_due(db)
    return device_id, token


def test_without_the_procedure_sent_commands_are_sent_again(restored, fake_fcm: FakeFcm):
    assert sweep()["sent"] == 2
    assert len(fake_fcm.posts("waits")) == len(fake_fcm.posts("in-flight")) == 2


def test_with_the_procedure_nothing_is_sent_again_or_listed_for_the_device(restored, db: Database, fake_fcm: FakeFcm):
    _, token = restored
    assert handler(samples.load("fcm_dispatch-after-restore"), CONTEXT) == {"unknown": 2}
    assert set(sweep().values()) == {0}
    assert len(fake_fcm.posts("waits")) == len(fake_fcm.posts("in-flight")) == 1
    assert [state(db, request_id) for request_id in ("waits", "in-flight")] == ["unknown", "unknown"]
    assert call("POST", "/v1/heartbeat", agent.heartbeat(fcm_token=None), token=token).json["pending_commands"] == []
    audit = db.execute("SELECT audit -> -1 ->> 'from' AS state FROM fcm_dispatches ORDER BY request_id")
    assert [row["state"] for row in audit] == ["retry_wait", "accepted"]
    assert handler({"after_restore": True}, CONTEXT) == {"unknown": 0}


def test_dispatch_claimed_at_the_snapshot_is_unknown(restored, db: Database, fake_fcm: FakeFcm):
    db.execute(
        "UPDATE fcm_dispatches SET state = 'sending', fence = fence + 1, next_at = NULL,"
        " lease_until = now() + interval '1 minute'"
    )
    assert handler({"after_restore": True}, CONTEXT) == {"unknown": 2}


def test_operator_may_resend_it_and_retention_keeps_its_key(restored, db: Database, fake_fcm: FakeFcm):
    # The snapshot is older than FCM's time to live, but what was sent after it may still be delivered.
    db.execute("UPDATE fcm_dispatches SET fcm_expires_at = now() - interval '2 days'")
    handler({"after_restore": True}, CONTEXT)
    db.execute("UPDATE fcm_dispatches SET sent_at = now() - interval '3 days'")
    assert run.clean(db, settings.load(), lambda: 60).policies["fcm_dispatches"].deleted == 0
    answer = call("POST", "/v1/commands/waits/resend", {"reason": "asked at the kiosk: it did not ring"})
    assert (answer.status, answer.json["state"]) == (202, "sent")
    assert len(fake_fcm.posts("waits")) == 2
