"""Selecting devices: labels, selectors in lists, previews, bulk changes bound to a preview, groups, imports."""

import threading
from hashlib import sha256
from typing import Any

import pytest
from nexmdm.devices import editing, imports, labelling
from nexmdm.devices.editing import DevicePatch
from nexmdm.devices.labelling import LabelChange
from nexmdm.runtime import actor
from nexmdm.runtime.database import Database, Executor
from psycopg2.extensions import make_dsn

from local.fcm import FakeFcm
from tests.support.api import OPERATOR, Answer, call, enroll

FLEET = {
    "till-1": {"site": "berlin", "role": "till"},
    "till-2": {"site": "berlin", "role": "till", "retired": "2025"},
    "till-3": {"site": "hamburg", "role": "till"},
    "screen-1": {"site": "berlin", "role": "screen", "floor": "3"},
    "spare-1": {},
}


@pytest.fixture
def fleet(url: str) -> dict[str, str]:
    """alias -> device_id"""
    ids = {}
    for alias, own in FLEET.items():
        ids[alias] = enroll(alias)[0]
        assert call("PATCH", f"/v1/devices/{ids[alias]}", {"labels": own}).status == 200
    return ids


def listed(**query: Any) -> list[str]:
    answer = call("GET", "/v1/devices", query=query)
    assert answer.status == 200, answer.text
    return [item["alias"] for item in answer.json["items"]]


def preview(**filter_: Any) -> dict[str, Any]:
    answer = call("POST", "/v1/devices/preview", {"filter": filter_})
    assert answer.status == 200, answer.text
    return answer.json


def hash_of(ids: list[str]) -> str:
    return sha256("\n".join(sorted(ids)).encode()).hexdigest()


def labels_of(device_id: str) -> dict[str, str]:
    return call("GET", f"/v1/devices/{device_id}").json["labels"]


def events(**query: str) -> list[dict[str, Any]]:
    return call("GET", "/v1/events", query=query).json["items"]


# --- one device


def test_labels_are_merged_as_in_rfc_7396(fleet: dict[str, str]):
    path = f"/v1/devices/{fleet['till-2']}"
    answer = call("PATCH", path, {"labels": {"retired": None, "site": "münchen 2", "note": "", "gone": None}})
    wanted = {"site": "münchen 2", "role": "till", "note": ""}
    assert answer.json == {
        "device_id": fleet["till-2"], "alias": "till-2", "labels": wanted, "monitored_package": None,
    }  # fmt: skip
    assert labels_of(fleet["till-2"]) == wanted
    assert call("PATCH", path, {"labels": None}).json["labels"] == {}


def test_patch_changes_only_the_named_members_and_leaves_one_event(fleet: dict[str, str]):
    path = f"/v1/devices/{fleet['till-1']}"
    answer = call("PATCH", path, {"alias": "till-9", "monitored_package": "io.player", "labels": {"a": "b"}})
    assert answer.json["labels"] == {**FLEET["till-1"], "a": "b"}
    shown = call("GET", path).json
    assert (shown["alias"], shown["monitored_package"]) == ("till-9", "io.player")
    [event, *earlier] = events(object=f"device:{fleet['till-1']}")
    assert event["actor"] == OPERATOR
    assert event["before"] == {"alias": "till-1", "labels": FLEET["till-1"], "monitored_package": None}
    assert event["after"] == {"alias": "till-9", "labels": answer.json["labels"], "monitored_package": "io.player"}
    # An unchanged device leaves no event.
    assert call("PATCH", path, {"alias": "till-9", "labels": {"a": "b"}}).status == 200
    assert len(events(object=f"device:{fleet['till-1']}")) == 1 + len(earlier)
    assert call("PATCH", path, {"monitored_package": None}).json["monitored_package"] is None


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({}, "$"),
        ({"labels": {"Site": "x"}}, "$.labels"),
        ({"labels": {"site": 5}}, None),
        ({"labels": {"site": "x" * 201}}, None),
        ({"labels": {f"k{n}": "" for n in range(33)}}, "$.labels"),
        ({"monitored_package": "not a package"}, "$.monitored_package"),
        ({"alias": None}, "$.alias"),
        ({"id": "x"}, "$"),
    ],
)
def test_invalid_patch_is_refused_with_its_field(fleet: dict[str, str], patch: dict, path: str | None):
    call("PATCH", f"/v1/devices/{fleet['till-1']}", patch).problem(422, path)
    assert labels_of(fleet["till-1"]) == FLEET["till-1"]


def test_33rd_label_is_refused(fleet: dict[str, str]):
    path = f"/v1/devices/{fleet['spare-1']}"
    assert call("PATCH", path, {"labels": {f"k{n}": "" for n in range(32)}}).status == 200
    call("PATCH", path, {"labels": {"one.more": ""}}).problem(422, "$.labels")
    assert call("PATCH", path, {"labels": {"one.more": "", "k0": None}}).status == 200


def test_taken_alias_is_refused(fleet: dict[str, str]):
    call("PATCH", f"/v1/devices/{fleet['till-1']}", {"alias": "till-2"}).problem(409)


# --- lists


@pytest.mark.parametrize(
    ("query", "aliases"),
    [
        ({"selector": "site=berlin"}, ["screen-1", "till-1", "till-2"]),
        ({"selector": "site=berlin,role==till,!retired"}, ["till-1"]),
        ({"selector": "role!=till"}, ["screen-1", "spare-1"]),
        ({"selector": "site notin (berlin, hamburg)"}, ["spare-1"]),
        ({"selector": "floor>2"}, ["screen-1"]),
        ({"selector": "site in (hamburg)", "alias": "till"}, ["till-3"]),
        ({"selector": "site", "online": "true"}, []),
    ],
)
def test_device_list_accepts_a_selector(fleet: dict[str, str], query: dict, aliases: list[str]):
    assert listed(**query) == aliases
    pages = call("GET", "/v1/devices", query={**query, "limit": 1}).json
    assert [item["alias"] for item in pages["items"]] == aliases[:1]


def test_invalid_selector_names_its_column(fleet: dict[str, str]):
    problem = call("GET", "/v1/devices", query={"selector": "site=berlin,=x"}).problem(422, "query.selector")
    assert problem["errors"][0]["column"] == 13
    body = {"filter": {"selector": "site in (a"}}
    problem = call("POST", "/v1/devices/preview", body).problem(422, "$.filter.selector")
    assert problem["errors"][0]["column"] == 11
    call("GET", "/v1/devices", query={"selector": ""}).problem(422, "query.selector")


def test_summary_counts_the_devices_that_the_filter_selects(fleet: dict[str, str]):
    assert call("GET", "/v1/fleet/summary", query={"selector": "role=till"}).json["devices"] == 3
    assert call("GET", "/v1/fleet/summary").json["devices"] == 5
    call("GET", "/v1/fleet/summary", query={"selector": "=x"}).problem(422, "query.selector")
    call("GET", "/v1/fleet/summary", query={"group": "nowhere"}).problem(422, "query.group")


# --- previews


def test_preview_has_a_count_ten_names_and_a_hash(fleet: dict[str, str]):
    chosen = [fleet[alias] for alias in ("screen-1", "till-1", "till-2")]
    assert preview(selector="site=berlin") == {
        "device_count": 3, "sample": ["screen-1", "till-1", "till-2"], "target_hash": hash_of(chosen),
    }  # fmt: skip
    assert preview(selector="site=nowhere") == {"device_count": 0, "sample": [], "target_hash": hash_of([])}
    by_id = call("POST", "/v1/devices/preview", {"device_ids": chosen[::-1] + chosen}).json
    assert by_id == preview(selector="site=berlin")
    for n in range(12):
        enroll(f"many-{n:02}")
    assert preview(alias_prefix="many-")["sample"] == [f"many-{n:02}" for n in range(10)]


@pytest.mark.parametrize(
    "body",
    [{}, {"filter": {}}, {"filter": {"all": True}, "device_ids": ["x"]}, {"device_ids": ["x"]}, {"selector": "a"}],
)
def test_preview_without_a_filter_is_refused(fleet: dict[str, str], body: dict):
    call("POST", "/v1/devices/preview", body).problem(422)


# --- labels of many


def test_labels_are_set_and_removed_on_all_selected_devices(fleet: dict[str, str]):
    body = {"filter": {"selector": "role=till"}, "set": {"stage": "pilot", "site": "berlin"}, "remove": ["retired"]}
    answer = call("POST", "/v1/devices/labels", body)
    assert (answer.status, answer.json) == (200, {"device_count": 3, "changed": 3})
    assert labels_of(fleet["till-2"]) == {"site": "berlin", "role": "till", "stage": "pilot"}
    assert labels_of(fleet["screen-1"]) == FLEET["screen-1"]
    assert call("POST", "/v1/devices/labels", body).json == {"device_count": 3, "changed": 0}
    [event] = events(action="device.label")
    assert event["object"] == f"devices:{hash_of([fleet[f'till-{n}'] for n in (1, 2, 3)])}"
    assert event["after"] == {**body, "device_count": 3, "changed": 3}


def test_labels_are_changed_on_devices_by_id(fleet: dict[str, str]):
    body = {"device_ids": [fleet["till-1"]], "set": {"a": "1"}}
    assert call("POST", "/v1/devices/labels", body).json == {"device_count": 1, "changed": 1}
    body["device_ids"].append("nobody")
    problem = call("POST", "/v1/devices/labels", {**body, "set": {"b": "1"}}).problem(422, "$.device_ids")
    assert "nobody" in problem["detail"]
    assert "b" not in labels_of(fleet["till-1"])


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"set": {"a": "1"}, "remove": ["a"]}, "$.set.a"),
        ({}, "$"),
        ({"set": {"A": "1"}}, "$.set"),
        ({"remove": ["A"]}, "$.remove[0]"),
        ({"set": {"a": None}}, None),
        ({"set": {"a": "1"}, "filter": {}}, "$.filter"),
    ],
)
def test_invalid_label_change_is_refused_with_its_field(fleet: dict[str, str], change: dict, path: str | None):
    call("POST", "/v1/devices/labels", {"filter": {"all": True}, **change}).problem(422, path)


def test_label_change_that_overfills_one_device_changes_nothing(fleet: dict[str, str]):
    full = {f"k{n}": "" for n in range(32)}
    assert call("PATCH", f"/v1/devices/{fleet['spare-1']}", {"labels": full}).status == 200
    problem = call("POST", "/v1/devices/labels", {"filter": {"all": True}, "set": {"a": "1"}}).problem(422, "$.set")
    assert "spare-1" in problem["detail"]
    assert labels_of(fleet["till-1"]) == FLEET["till-1"]
    body = {"filter": {"all": True}, "set": {"a": "1"}, "remove": ["k0"]}
    assert call("POST", "/v1/devices/labels", body).json["changed"] == 5


def test_concurrent_label_changes_are_both_kept(url: str, fleet: dict[str, str]):
    """Each call waits for rows that the other holds, and the second computes from what the first stored."""
    connections = [Database(make_dsn(url)) for _ in range(2)]
    me = actor.operator("me")
    try:
        with connections[0].transaction() as tx:
            labelling.change(tx, LabelChange(device_ids=[fleet["till-1"]], set={"a": "1"}), 600, me)
            body = LabelChange(device_ids=list(fleet.values()), set={"b": "2"})
            other = threading.Thread(target=labelling.change, args=(connections[1], body, 600, me))
            other.start()
            waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted"
            while not tx.execute(waiting)[0]["n"]:
                assert other.is_alive()
        other.join()
    finally:
        for connection in connections:
            connection.close()
    assert labels_of(fleet["till-1"]) == {**FLEET["till-1"], "a": "1", "b": "2"}


def test_labels_in_use_are_counted(fleet: dict[str, str]):
    call("DELETE", f"/v1/devices/{fleet['screen-1']}")
    assert call("GET", "/v1/labels").json["items"] == [
        {"key": "retired", "device_count": 1, "values": [{"value": "2025", "device_count": 1}]},
        {"key": "role", "device_count": 3, "values": [{"value": "till", "device_count": 3}]},
        {
            "key": "site",
            "device_count": 3,
            "values": [{"value": "berlin", "device_count": 2}, {"value": "hamburg", "device_count": 1}],
        },
    ]


# --- changes bound to a preview


def acting(fleet: dict[str, str]) -> dict[str, Any]:
    return {
        "/v1/devices/labels": {"set": {"a": "1"}},
        "/v1/devices/delete": {},
    }


@pytest.mark.parametrize("path", ["/v1/devices/labels", "/v1/devices/delete"])
def test_changed_selection_is_reported_and_nothing_is_done(fleet: dict[str, str], path: str):
    filter_ = {"selector": "site=berlin"}
    seen = preview(**filter_)
    call("PATCH", f"/v1/devices/{fleet['till-3']}", {"labels": {"site": "berlin"}})
    body = {"filter": filter_, "expect_target_hash": seen["target_hash"], **acting(fleet)[path]}
    problem = call("POST", path, body).problem(409)
    now = preview(**filter_)
    assert now["device_count"] == 4
    assert {name: problem[name] for name in ("code", "device_count", "target_hash")} == {
        "code": "targets_changed", "device_count": 4, "target_hash": now["target_hash"],
    }  # fmt: skip
    assert len(listed()) == 5
    assert "a" not in labels_of(fleet["till-1"])
    assert not events(action="device.label") + events(action="device.delete")
    answer = call("POST", path, {**body, "expect_target_hash": now["target_hash"]})
    assert (answer.status, answer.json["device_count"]) == (200, 4)


def test_delete_by_filter_needs_a_preview(fleet: dict[str, str]):
    call("POST", "/v1/devices/delete", {"filter": {"all": True}}).problem(422, "$.expect_target_hash")
    call("POST", "/v1/devices/delete", {"filter": {"all": True}, "expect_target_hash": "x"}).problem(
        422, "$.expect_target_hash"
    )
    assert len(listed()) == 5


def test_deleted_devices_are_gone_and_free_their_aliases(fleet: dict[str, str]):
    chosen = [fleet["till-1"], fleet["till-2"]]
    answer = call("POST", "/v1/devices/delete", {"device_ids": chosen})
    assert answer.json == {"device_count": 2, "deleted": 2}
    assert listed() == ["screen-1", "spare-1", "till-3"]
    [event] = events(action="device.delete")
    assert (event["object"], event["after"]) == (f"devices:{hash_of(chosen)}", {"device_count": 2, "deleted": 2})
    # A call whose response was lost may be repeated; an id that never existed is an error.
    assert call("POST", "/v1/devices/delete", {"device_ids": chosen}).json == {"device_count": 0, "deleted": 0}
    call("POST", "/v1/devices/delete", {"device_ids": [fleet["till-3"], "nobody"]}).problem(422, "$.device_ids")
    assert "till-3" in listed()
    enroll("till-1")


# --- commands


def many(request_id: str, **body: Any) -> Answer:
    return call("POST", "/v1/commands", {"action": "ping", "request_id": request_id, **body})


def members(request_id: str) -> set[str]:
    items = call("GET", "/v1/commands", query={"batch": request_id}).json["items"]
    return {item["device_id"] for item in items}


def test_command_goes_to_devices_that_the_filter_selects(fleet: dict[str, str], fake_fcm: FakeFcm):
    put("berlin", selector="site=berlin")
    answer = many("b-1", filter={"group": "berlin", "selector": "role=till", "alias_prefix": "till-"})
    assert (answer.status, answer.json["device_count"]) == (202, 2)
    assert members("b-1") == {fleet["till-1"], fleet["till-2"]}
    assert answer.json["selector"] == {"filter": {"selector": "role=till", "group": "berlin", "alias_prefix": "till-"}}
    [event] = events(object="command:b-1")
    assert event["after"]["target_hash"] == hash_of([fleet["till-1"], fleet["till-2"]])
    many("b-2", filter={"selector": "=x"}).problem(422, "$.filter.selector")
    many("b-2", filter={"group": "nowhere"}).problem(422, "$.filter.group")
    many("b-2", filter={"selector": "site=nowhere"}).problem(422, "$.filter")
    many("b-2", filter={"all": True}, expect_target_hash="short").problem(422, "$.expect_target_hash")


def test_command_with_a_stale_preview_is_refused_and_frees_its_request_id(fleet: dict[str, str], fake_fcm: FakeFcm):
    filter_ = {"selector": "role=till"}
    seen = preview(**filter_)
    call("PATCH", f"/v1/devices/{fleet['till-3']}", {"labels": {"role": "spare"}})
    problem = many("b-1", filter=filter_, expect_target_hash=seen["target_hash"]).problem(409)
    now = preview(**filter_)
    assert (problem["code"], problem["device_count"], problem["target_hash"]) == (
        "targets_changed", 2, now["target_hash"],
    )  # fmt: skip
    call("GET", "/v1/commands/b-1").problem(404)
    assert many("b-1", filter=filter_, expect_target_hash=now["target_hash"]).status == 202
    assert len(members("b-1")) == 2
    # No device is left, which is a different set too.
    call("PATCH", f"/v1/devices/{fleet['till-1']}", {"labels": None})
    call("PATCH", f"/v1/devices/{fleet['till-2']}", {"labels": None})
    gone = many("b-2", filter=filter_, expect_target_hash=now["target_hash"]).problem(409)
    assert (gone["device_count"], gone["target_hash"]) == (0, hash_of([]))


def test_repeated_command_is_answered_before_its_targets_are_evaluated(fleet: dict[str, str], fake_fcm: FakeFcm):
    put("tills", selector="role=till")
    first = many("b-1", filter={"group": "tills"}, expect_target_hash=preview(group="tills")["target_hash"])
    assert first.status == 202
    call("DELETE", f"/v1/devices/{fleet['till-1']}")
    # A repeat checks neither the devices nor the hash nor the group.
    assert call("DELETE", "/v1/groups/tills").status == 204
    for hash_ in ({}, {"expect_target_hash": "0" * 64}):
        again = many("b-1", filter={"group": "tills"}, **hash_)
        assert (again.status, again.json) == (200, first.json)
    many("b-1", filter={"group": "other"}).problem(422)


# --- groups


def put(name: str, **filter_: Any) -> Answer:
    return call("PUT", f"/v1/groups/{name}", {"filter": filter_})


def test_group_is_a_name_for_a_filter(fleet: dict[str, str]):
    answer = put("berlin", selector="site = berlin")
    assert answer.status == 200
    assert (answer.json["filter"], answer.json["device_count"]) == ({"selector": "site = berlin"}, 3)
    put("all", all=True)
    assert call("GET", "/v1/groups/berlin").json == answer.json
    items = call("GET", "/v1/groups").json["items"]
    assert [(item["name"], item["device_count"]) for item in items] == [("all", 5), ("berlin", 3)]
    assert listed(group="berlin", alias="till") == ["till-1", "till-2"]
    assert preview(group="berlin", selector="role=screen")["sample"] == ["screen-1"]
    # The filter is evaluated when the group is used.
    put("berlin", selector="site=hamburg")
    assert listed(group="berlin") == ["till-3"]


def test_groups_are_paged(fleet: dict[str, str]):
    names = [f"g{n:02}" for n in range(25)]
    for name in names:
        put(name, selector=f"site,k!={name}")
    first = call("GET", "/v1/groups", query={"limit": 20}).json
    rest = call("GET", "/v1/groups", query={"limit": 20, "cursor": first["next_cursor"]}).json
    assert [item["name"] for item in first["items"] + rest["items"]] == names
    assert {item["device_count"] for item in first["items"] + rest["items"]} == {4}
    assert rest["next_cursor"] is None


def test_each_group_change_leaves_an_event(fleet: dict[str, str]):
    put("g", all=True)
    put("g", all=True)
    put("g", online=True)
    assert call("DELETE", "/v1/groups/g").status == 204
    found = [(event["action"], event["before"], event["after"]) for event in events(object="group:g")]
    first, last = [{"filter": filter_, "monitored_package": None} for filter_ in ({"all": True}, {"online": True})]
    assert found == [("group.delete", last, None), ("group.update", first, last), ("group.create", None, first)]


@pytest.mark.parametrize(
    ("filter_", "path"),
    [({"group": "other"}, "$.filter.group"), ({}, "$.filter"), ({"selector": "=a"}, "$.filter.selector")],
)
def test_group_with_an_invalid_filter_is_refused(url: str, filter_: dict, path: str):
    put("g", **filter_).problem(422, path)


@pytest.mark.parametrize("name", ["-a", "a%20b", "a" * 64, "ü", "a%0A"])
def test_invalid_group_name_is_refused(url: str, name: str):
    put(name, all=True).problem(422, "path.name")


def test_unknown_group_returns_404(fleet: dict[str, str]):
    call("GET", "/v1/groups/nowhere").problem(404)
    call("DELETE", "/v1/groups/nowhere").problem(404)
    call("POST", "/v1/devices/preview", {"filter": {"group": "nowhere"}}).problem(422, "$.filter.group")
    call("GET", "/v1/devices", query={"group": "nowhere"}).problem(422, "query.group")


# --- imports


def imported(*rows: dict[str, Any], dry_run: bool = False) -> Answer:
    return call("POST", "/v1/devices/import", {"devices": list(rows), "dry_run": dry_run})


def test_import_sets_aliases_and_labels(fleet: dict[str, str]):
    rows = [
        {"device_id": fleet["till-1"], "alias": "till-2", "labels": {"site": "bonn"}},
        {"device_id": fleet["till-2"], "alias": "till-1"},
        {"alias": "spare-1", "labels": {"role": "spare"}, "online": False},
        {"device_id": fleet["till-3"], "alias": "till-3", "labels": FLEET["till-3"]},
    ]
    assert imported(*rows, dry_run=True).json == {"device_count": 4, "changed": 3, "dry_run": True}
    assert labels_of(fleet["till-1"]) == FLEET["till-1"]
    assert imported(*rows).json == {"device_count": 4, "changed": 3, "dry_run": False}
    assert labels_of(fleet["till-1"]) == {"site": "bonn"}
    assert labels_of(fleet["till-2"]) == FLEET["till-2"]
    assert labels_of(fleet["spare-1"]) == {"role": "spare"}
    assert call("GET", f"/v1/devices/{fleet['till-1']}").json["alias"] == "till-2"
    assert call("GET", f"/v1/devices/{fleet['till-2']}").json["alias"] == "till-1"
    [event] = events(action="device.import")
    assert event["after"] == {"device_count": 4, "changed": 3}
    assert imported(*rows[2:]).json["changed"] == 0
    assert len(events(action="device.import")) == 1


def test_import_names_every_invalid_row_and_changes_nothing(fleet: dict[str, str]):
    rows = [
        {"device_id": fleet["till-1"], "labels": {"site": "bonn"}},
        {"device_id": "nobody"},
        {"alias": "nobody"},
        {"labels": {}},
        {"device_id": fleet["till-2"], "labels": {"Site": "x"}},
        {"device_id": fleet["till-3"], "alias": "screen-1"},
        {"device_id": fleet["spare-1"], "alias": "x"},
        {"alias": "spare-1"},
    ]
    for dry_run in (True, False):
        problem = imported(*rows, dry_run=dry_run).problem(422)
        assert [error["path"].partition(".labels")[0] for error in problem["errors"]] == [
            "$.devices[1].device_id",
            "$.devices[2].alias",
            "$.devices[3]",
            "$.devices[4]",
            "$.devices[5].alias",
            "$.devices[6].device_id",
            "$.devices[7].alias",
        ]
        assert labels_of(fleet["till-1"]) == FLEET["till-1"]


def test_import_with_a_repeated_alias_is_refused(fleet: dict[str, str]):
    rows = [{"device_id": fleet[alias], "alias": "same"} for alias in ("till-1", "till-2")]
    errors = imported(*rows).problem(422)["errors"]
    assert [error["path"] for error in errors] == ["$.devices[0].alias", "$.devices[1].alias"]


def test_import_waits_for_a_change_of_the_same_device(url: str, fleet: dict[str, str]):
    connections = [Database(make_dsn(url)) for _ in range(2)]
    me = actor.operator("me")
    rows = imports.Import(devices=[{"device_id": fleet["till-1"], "alias": "till-x"}])
    try:
        with connections[0].transaction() as tx:
            tx.execute('UPDATE devices SET labels = \'{"a": "1"}\' WHERE id = %(id)s', {"id": fleet["till-1"]})
            other = threading.Thread(target=imports.run, args=(connections[1], rows, me))
            other.start()
            while not tx.execute("SELECT count(*) AS n FROM pg_locks WHERE NOT granted")[0]["n"]:
                assert other.is_alive()
        other.join()
    finally:
        for connection in connections:
            connection.close()
    assert labels_of(fleet["till-1"]) == {"a": "1"}


def test_import_does_not_hold_up_commands(
    url: str, db: Database, fleet: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    """A bulk command locks the keys of its devices in another order; each could wait for the other."""
    write = imports._write

    def checked(tx: Executor, changes: list[dict[str, Any]]) -> None:
        write(tx, changes)
        db.execute("SELECT FROM devices FOR KEY SHARE NOWAIT")

    monkeypatch.setattr(imports, "_write", checked)
    assert imported({"device_id": fleet["till-1"], "alias": "till-x", "labels": {"a": "1"}}).json["changed"] == 1


def test_concurrent_patches_are_both_kept(url: str, fleet: dict[str, str]):
    connections = [Database(make_dsn(url)) for _ in range(2)]
    threads = [
        threading.Thread(
            target=editing.update,
            args=(db, fleet["till-1"], DevicePatch(labels={f"k{n}": "x"}), actor.operator("me")),
        )
        for n, db in enumerate(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()
    assert labels_of(fleet["till-1"]) == {**FLEET["till-1"], "k0": "x", "k1": "x"}


# --- enrollment tokens


def token(alias: str, **body: Any) -> dict[str, Any]:
    answer = call("POST", "/v1/enroll-tokens", {"aliases": [alias], **body})
    assert answer.status == 201, answer.text
    return answer.json["items"][0]


def registered(made: dict[str, Any], alias: str) -> str:
    return call("POST", "/v1/register", {"alias": alias}, token=made["token"]).json["device_id"]


def test_device_gets_the_labels_of_its_token(url: str):
    made = token("hall", labels={"site": "berlin", "note": "ü"})
    assert made["labels"] == {"site": "berlin", "note": "ü"}
    assert call("GET", "/v1/enroll-tokens").json["items"][0]["labels"] == made["labels"]
    assert labels_of(registered(made, "hall")) == made["labels"]


def test_taken_over_device_keeps_its_labels_unless_the_token_sets_them(fleet: dict[str, str]):
    device_id = registered(token("till-2", labels={"site": "bonn", "stage": "pilot"}), "till-2")
    assert device_id == fleet["till-2"]
    assert labels_of(device_id) == {"site": "bonn", "stage": "pilot", "role": "till", "retired": "2025"}


def test_device_with_all_labels_used_can_be_taken_over(fleet: dict[str, str]):
    full = {f"k{n}": "old" for n in range(32)}
    assert call("PATCH", f"/v1/devices/{fleet['spare-1']}", {"labels": full}).status == 200
    registered(token("spare-1", labels={"a": "new", "k31": "new"}), "spare-1")
    found = labels_of(fleet["spare-1"])
    assert len(found) == 32
    assert (found["a"], found["k31"]) == ("new", "new")


def test_token_labels_have_the_same_limits(url: str):
    for bad in ({"Site": "x"}, {"a": None}, {f"k{n}": "" for n in range(33)}, {"a": "x" * 201}):
        call("POST", "/v1/enroll-tokens", {"aliases": ["a"], "labels": bad}).problem(422)


def test_alerts_are_listed_for_devices_that_a_filter_selects(fleet: dict[str, str], db: Database):
    db.execute("INSERT INTO device_alerts (device_id, condition) SELECT id, 'silent' FROM devices")

    def aliases(**query: Any) -> set[str]:
        return {item["alias"] for item in call("GET", "/v1/alerts", query=query).json["items"]}

    assert aliases() == set(FLEET)
    assert aliases(selector="site=berlin", alias="till") == {"till-1", "till-2"}
    assert aliases(online="true") == set()
    put("screens", selector="role=screen")
    assert aliases(group="screens", open="true") == {"screen-1"}
    call("GET", "/v1/alerts", query={"selector": "a b"}).problem(422, "query.selector")
