"""The monitored app is started again where it is installed and not in front, once per device and half hour."""

import pytest
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from local.fcm import FakeFcm
from tests.support.api import call
from tests.support.commands import ADDRESS, enrolled, sweep

APP = "io.unitynodes.unityapp"


@pytest.fixture(autouse=True)
def switched_on(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTO_RELAUNCH", "true")
    settings.load.cache_clear()


@pytest.fixture
def phone(fake_fcm: FakeFcm) -> tuple[str, str]:
    return enrolled("lobby", ADDRESS)


def report(token: str, seconds: int | None, installed: bool = True) -> None:
    app = {"installed": installed, "version_name": "1.0", "version_code": 1}
    body = {"app_versions": {APP: app}, "monitored_foreground_recent_s": seconds}
    assert call("POST", "/v1/heartbeat", body, token=token).status == 200


def test_app_is_relaunched_once(fake_fcm: FakeFcm, phone, db: Database):
    report(phone[1], 601)
    assert sweep()["relaunched"] == 1
    assert sweep()["relaunched"] == 0
    post = fake_fcm.requests()[-1]
    assert (post.data["action"], post.data["package_name"]) == ("launch_app", APP)
    (row,) = db.execute("SELECT request_id, created_by, state FROM fcm_dispatches")
    assert row["request_id"].startswith(f"relaunch.{phone[0]}.")
    assert (row["created_by"], row["state"]) == ("system:sweep", "sent")
    (event,) = db.execute("SELECT actor, action, object FROM operator_events WHERE action = 'device.relaunch_app'")
    assert event == {"actor": "system:sweep", "action": "device.relaunch_app", "object": f"device:{phone[0]}"}


def test_next_relaunch_waits_for_a_report(fake_fcm: FakeFcm, phone, db: Database):
    report(phone[1], 601)
    sweep()
    db.execute("UPDATE fcm_dispatches SET request_id = 'relaunch.earlier'")
    assert sweep()["relaunched"] == 0, "relaunched although the device has not reported since"
    db.execute("UPDATE fcm_dispatches SET created_at = now() - interval '40 minutes'")
    assert sweep()["relaunched"] == 1


@pytest.mark.parametrize(("seconds", "installed"), [(600, True), (0, True), (None, True), (-1, True), (9000, False)])
def test_phone_in_order_or_without_the_app_is_not_relaunched(fake_fcm: FakeFcm, phone, seconds, installed):
    report(phone[1], seconds, installed)
    assert sweep()["relaunched"] == 0


def test_silent_phone_is_not_relaunched(fake_fcm: FakeFcm, phone, db: Database):
    report(phone[1], 601)
    db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '1 hour'")
    assert sweep()["relaunched"] == 0


def test_relaunch_is_off_by_default(fake_fcm: FakeFcm, phone, monkeypatch):
    monkeypatch.delenv("AUTO_RELAUNCH")
    settings.load.cache_clear()
    report(phone[1], 601)
    assert sweep()["relaunched"] == 0


def test_request_ids_of_relaunches_are_reserved(phone):
    body = {"action": "ping", "request_id": "relaunch.x.1"}
    call("POST", f"/v1/devices/{phone[0]}/commands", body).problem(422, "$.request_id")
