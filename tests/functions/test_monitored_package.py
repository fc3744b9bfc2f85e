"""Which app is monitored on a device: its own setting, else its first matching group's by name, else the default."""

from typing import Any

import pytest
from nexmdm.alerts import evaluation
from nexmdm.alerts.evaluation import Evaluated
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from local.fcm import FakeFcm
from tests.support.api import Device, call, enroll
from tests.support.commands import ADDRESS, enrolled, sweep

DEFAULT = "io.unitynodes.unityapp"
TILL, SCREEN = "com.example.till", "com.example.screen"
IN_BACKGROUND = {"unity_process_running": False, "monitored_foreground_recent_s": 3600}


@pytest.fixture
def device(url: str) -> Device:
    return Device(*enroll("till-1", labels={"role": "till"}))


def put(name: str, package: str | None, **filter_: Any) -> dict[str, Any]:
    answer = call("PUT", f"/v1/groups/{name}", {"filter": filter_, "monitored_package": package})
    assert answer.status == 200, answer.json
    return answer.json


def watched(device: Device) -> str:
    """The package on the device's page; the list of devices must agree."""
    shown = call("GET", f"/v1/devices/{device.id}").json["effective_monitored_package"]
    [listed] = call("GET", "/v1/devices", query={"alias": "till-1"}).json["items"]
    assert listed["effective_monitored_package"] == shown
    return shown


def report(token: str, *packages: str, **members: Any) -> None:
    apps = {package: {"installed": True, "version_name": "1.0", "version_code": 1} for package in packages}
    assert call("POST", "/v1/heartbeat", {"app_versions": apps, **members}, token=token).status == 200


def evaluate(db: Database) -> dict[str, Evaluated]:
    """Evaluate the rules and return the conditions for which something changed."""
    return {name: found for name, found in evaluation.evaluate(db, settings.load()).items() if found != Evaluated()}


def test_group_shows_its_package_and_put_replaces_it(device: Device):
    assert put("tills", TILL, selector="role=till")["monitored_package"] == TILL
    assert call("GET", "/v1/groups/tills").json["monitored_package"] == TILL
    assert [group["monitored_package"] for group in call("GET", "/v1/groups").json["items"]] == [TILL]
    changed = call("PUT", "/v1/groups/tills", {"filter": {"selector": "role=till"}}).json
    assert changed["monitored_package"] is None
    assert watched(device) == DEFAULT


def test_each_change_of_a_monitored_package_leaves_one_event(device: Device):
    for package in (TILL, TILL, SCREEN, None):
        put("tills", package, all=True)
    assert call("DELETE", "/v1/groups/tills").status == 204
    events = call("GET", "/v1/events", query={"object": "group:tills"}).json["items"]
    packages = [
        (event["action"], *(side and side["monitored_package"] for side in (event["before"], event["after"])))
        for event in events
    ]
    assert packages == [
        ("group.delete", None, None),
        ("group.update", SCREEN, None),
        ("group.update", TILL, SCREEN),
        ("group.create", None, TILL),
    ]


@pytest.mark.parametrize("package", ["not a package", "", "1a", "a\n", "a" * 256, 7])
def test_invalid_package_name_is_refused(url: str, package: object):
    body = {"filter": {"all": True}, "monitored_package": package}
    call("PUT", "/v1/groups/tills", body).problem(422, "$.monitored_package")


def test_own_package_then_first_group_by_name_then_setting_applies(device: Device):
    assert watched(device) == DEFAULT
    put("b", SCREEN, all=True)
    assert watched(device) == SCREEN
    put("a", TILL, selector="role=till")
    assert watched(device) == TILL
    put("Z", "com.example.last", all=True)
    assert watched(device) == "com.example.last", "group names must compare by their bytes"
    assert call("DELETE", "/v1/groups/Z").status == 204
    put("A", None, all=True)
    assert watched(device) == TILL, "a group without a package must be skipped"
    call("PATCH", f"/v1/devices/{device.id}", {"monitored_package": "com.example.own"})
    assert watched(device) == "com.example.own"
    call("PATCH", f"/v1/devices/{device.id}", {"monitored_package": None})
    put("a", TILL, selector="role=screen")
    assert watched(device) == SCREEN, "a change of the first group's filter must count"
    call("PATCH", f"/v1/devices/{device.id}", {"labels": {"role": "screen"}})
    assert watched(device) == TILL, "a change of the device's labels must count"
    for name in ("a", "b"):
        assert call("DELETE", f"/v1/groups/{name}").status == 204
    assert watched(device) == DEFAULT


@pytest.mark.parametrize("condition", ["app_down", "app_background"])
def test_alert_is_about_the_app_of_the_group(db: Database, device: Device, condition: str):
    db.execute("DELETE FROM alert_rules")
    db.execute("INSERT INTO alert_rules (name, condition) VALUES ('one', %(condition)s)", {"condition": condition})
    report(device.token, TILL, **IN_BACKGROUND)
    assert evaluate(db) == {}, "the alert is not about the default app, which is not installed"
    put("screens", SCREEN, selector="role=screen")
    put("tills", TILL, selector="role=till")
    assert evaluate(db) == {condition: Evaluated(opened=1)}
    assert db.execute("SELECT detail ->> 'package' AS package FROM device_alerts") == [{"package": TILL}]


@pytest.mark.parametrize("change", ["deleted", "another filter", "no package", "the device's own"])
def test_package_change_counts_from_the_next_watch(db: Database, device: Device, change: str):
    put("tills", TILL, selector="role=till")
    report(device.token, TILL, **IN_BACKGROUND)
    if change == "deleted":
        assert call("DELETE", "/v1/groups/tills").status == 204
    elif change == "another filter":
        put("tills", TILL, selector="role=screen")
    elif change == "no package":
        put("tills", None, selector="role=till")
    else:
        call("PATCH", f"/v1/devices/{device.id}", {"monitored_package": SCREEN})
    assert evaluate(db) == {}


def test_open_alert_recovers_when_its_group_is_deleted(db: Database, device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALERT_COOLDOWN_SECONDS", "0")
    settings.load.cache_clear()
    put("tills", TILL, selector="role=till")
    report(device.token, TILL, **IN_BACKGROUND)
    assert evaluate(db) == {"app_down": Evaluated(opened=1)}
    assert call("DELETE", "/v1/groups/tills").status == 204
    assert evaluate(db) == {"app_down": Evaluated(recovered=1)}


def test_sweep_launches_the_app_of_the_group(url: str, fake_fcm: FakeFcm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTO_RELAUNCH", "true")
    settings.load.cache_clear()
    device_id, token = enrolled("till-1", ADDRESS)
    call("PATCH", f"/v1/devices/{device_id}", {"labels": {"role": "till"}})
    report(token, DEFAULT, TILL, monitored_foreground_recent_s=601)
    put("screens", SCREEN, selector="role=screen")
    put("tills", TILL, selector="role=till")
    assert sweep()["relaunched"] == 1
    assert fake_fcm.requests()[-1].data["package_name"] == TILL
