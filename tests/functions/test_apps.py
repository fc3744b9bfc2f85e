"""The app inventory of devices, as operators read it."""

import pytest

from tests.support import agent
from tests.support.api import call, enroll


def reported(alias: str, **apps: tuple[bool, str | None, int | None]) -> str:
    """Enroll a device that reports these apps; return its id."""
    device, token = enroll(alias)
    inventory = {
        f"com.{name}": {"installed": installed, "version_name": version, "version_code": code}
        for name, (installed, version, code) in apps.items()
    }
    body = agent.heartbeat(app_versions=inventory)
    assert call("POST", "/v1/heartbeat", body, token=token).status == 200
    return device


@pytest.fixture
def fleet(url) -> dict[str, str]:
    return {
        "a": reported("a", player=(True, "1.9", 190), tool=(True, None, 7)),
        "b": reported("b", player=(True, "1.8", 180), tool=(False, None, None)),
        "c": reported("c", player=(True, "1.9", 190)),
    }


def test_apps_of_the_fleet_are_counted_by_version(fleet):
    items = call("GET", "/v1/apps").json["items"]
    assert items == [
        {
            "package": "com.player",
            "device_count": 3,
            "versions": [
                {"version_name": "1.9", "version_code": 190, "device_count": 2},
                {"version_name": "1.8", "version_code": 180, "device_count": 1},
            ],
        },
        {
            "package": "com.tool",
            "device_count": 1,
            "versions": [{"version_name": None, "version_code": 7, "device_count": 1}],
        },
    ]


def test_app_list_has_pages_and_filters(fleet):
    first = call("GET", "/v1/apps", query={"limit": "1"}).json
    assert [item["package"] for item in first["items"]] == ["com.player"]
    second = call("GET", "/v1/apps", query={"limit": "1", "cursor": first["next_cursor"]}).json
    assert ([item["package"] for item in second["items"]], second["next_cursor"]) == (["com.tool"], None)
    (only,) = call("GET", "/v1/apps", query={"package": "com.tool"}).json["items"]
    assert only["package"] == "com.tool"
    assert call("GET", "/v1/apps", query={"alias": "b"}).json["items"][0]["device_count"] == 1
    call("GET", "/v1/apps", query={"selector": "a in"}).problem(422, "query.selector")


def test_apps_of_deleted_devices_do_not_count(fleet):
    assert call("DELETE", f"/v1/devices/{fleet['a']}").status == 204
    assert [item["package"] for item in call("GET", "/v1/apps").json["items"]] == ["com.player"]
    call("GET", f"/v1/devices/{fleet['a']}/apps").problem(404)


def test_apps_of_a_device_include_removed_ones(fleet, db):
    items = call("GET", f"/v1/devices/{fleet['b']}/apps").json["items"]
    assert [(item["package"], item["installed"], item["removed_at"]) for item in items] == [
        ("com.player", True, None),
        ("com.tool", False, None),
    ]
    page = call("GET", f"/v1/devices/{fleet['b']}/apps", query={"limit": "1"}).json
    rest = call("GET", f"/v1/devices/{fleet['b']}/apps", query={"cursor": page["next_cursor"]}).json
    assert [item["package"] for item in rest["items"]] == ["com.tool"]
    assert call("GET", f"/v1/devices/{enroll('new')[0]}/apps").json == {"items": [], "next_cursor": None}
    call("GET", "/v1/devices/none/apps").problem(404)
