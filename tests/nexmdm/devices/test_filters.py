"""Device filters: a filter without a condition is refused, and every evaluation finds the same devices."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nexmdm.devices import filters, selectors
from nexmdm.devices.filters import AppFilter, Filter
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import Invalid
from psycopg2.errors import CheckViolation
from psycopg2.extensions import make_dsn
from psycopg2.extras import Json

from tests.support import label_selectors
from tests.support.databases import Databases, url_of

INTERVAL = 600

keys = st.sampled_from(["site", "role", "floor", "in", "a.b_c-d"])
# Integers at and beyond 64 bits, values that a selector cannot write, and values that resemble another key's.
values = st.sampled_from(
    [
        "",
        "berlin",
        "7",
        "10",
        "-3",
        "+7",
        "007",
        "7.0",
        "9223372036854775807",
        "9223372036854775808",
        "in",
        "Straße 5",
        "é",
    ]
) | st.text(alphabet="ab1 %'\"\\{}?", max_size=6)
labels = st.dictionaries(keys, values, max_size=5)
writable = st.sampled_from(["", "berlin", "7", "10", "007", "in", "a1"])
integers = st.sampled_from(["0", "7", "10", "9223372036854775806", "9223372036854775807"])
requirements = st.one_of(
    st.builds("{}{}{}".format, keys, st.sampled_from(["=", "==", "!=", " != "]), writable),
    st.builds(
        "{} {} ({})".format, keys, st.sampled_from(["in", "notin"]), st.lists(writable, max_size=3).map(",".join)
    ).filter(lambda text: ",,)" not in text),
    keys,
    keys.map("!{}".format),
    st.builds("{}{}{}".format, keys, st.sampled_from(["<", ">"]), integers),
)
selector_texts = st.lists(requirements, min_size=1, max_size=4).map(",".join)


@pytest.fixture(scope="module")
def shared_db(server: str, databases: Databases) -> Iterator[Database]:
    """One database for all examples of a property test."""
    name, fingerprint = databases.take()
    db = Database(make_dsn(url_of(server, name)))
    yield db
    db.close()
    databases.give_back(name, fingerprint)


def put(db: Database, fleet: list[dict[str, Any]]) -> None:
    db.execute(
        "DELETE FROM device_apps; DELETE FROM device_last_status; DELETE FROM device_groups; DELETE FROM devices"
    )
    for n, device in enumerate(fleet):
        db.execute(
            "INSERT INTO devices (id, alias, labels) VALUES (%(id)s, %(alias)s, %(labels)s)",
            {"id": f"d{n}", "alias": f"{device.get('alias', 'x')}-{n}", "labels": Json(device["labels"])},
        )
        if device.get("seen") is not None:
            db.execute(
                """INSERT INTO device_last_status (device_id, last_ts, last_seen_at, agent_version)
                VALUES (%(id)s, now(), now() - %(ago)s, %(agent)s)""",
                {"id": f"d{n}", "ago": timedelta(seconds=device["seen"]), "agent": device.get("agent")},
            )


def listed(db: Database, filter_: Filter) -> set[str]:
    condition = filters.where(filters.resolve(db, filter_), INTERVAL)
    sql = f"SELECT d.id FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id WHERE {condition.sql}"
    return {row["id"] for row in db.execute(sql, condition.parameters)}


def matched(db: Database, filter_: Filter) -> set[str]:
    """The devices that match according to the function that decides for one device."""
    parameters = {"filter": Json(filters.stored(filter_)), "interval": INTERVAL}
    sql = "SELECT id FROM devices WHERE device_matches(id, %(filter)s::jsonb, %(interval)s)"
    return {row["id"] for row in db.execute(sql, parameters)}


@settings(max_examples=150)
@given(fleet=st.lists(labels, min_size=1, max_size=8), text=selector_texts)
def test_selector_finds_the_same_devices_in_sql_and_in_the_reference(shared_db: Database, fleet, text: str):
    put(shared_db, [{"labels": device} for device in fleet])
    wanted = {f"d{n}" for n, device in enumerate(fleet) if label_selectors.matches(label_selectors.parse(text), device)}
    assert listed(shared_db, Filter(selector=text)) == wanted
    assert matched(shared_db, Filter(selector=text)) == wanted


devices = st.fixed_dictionaries(
    {
        "labels": labels,
        "alias": st.sampled_from(["hall", "till", "Till", "t%"]),
        # None means never reported. The other ages are minutes away from the limit of three intervals.
        "seen": st.sampled_from([None, 0, 1500, 2100, 90_000]),
        "agent": st.sampled_from([None, "1.0", "2.0"]),
    }
)
own_filters = st.fixed_dictionaries(
    {},
    optional={
        "selector": selector_texts,
        "alias_prefix": st.sampled_from(["t", "till", "h", "t%"]),
        "online": st.booleans(),
        "agent_version": st.sampled_from(["1.0", "2.0"]),
    },
)


def fits(device: dict[str, Any], n: int, condition: dict[str, Any]) -> bool:
    selector = condition.get("selector")
    reported = device["seen"] is not None
    return (
        (selector is None or label_selectors.matches(label_selectors.parse(selector), device["labels"]))
        and f"{device['alias']}-{n}".startswith(condition.get("alias_prefix", ""))
        and condition.get("online") in (None, reported and device["seen"] < 3 * INTERVAL)
        and condition.get("agent_version") in (None, device["agent"] if reported else "none")
    )


@settings(max_examples=150)
@given(
    fleet=st.lists(devices, min_size=1, max_size=6),
    own=own_filters,
    group=st.none() | own_filters.filter(bool) | st.just({"all": True}),
)
def test_filter_finds_the_same_devices_in_a_list_and_one_by_one(shared_db: Database, fleet, own, group):
    put(shared_db, fleet)
    if group is not None:
        shared_db.execute(
            "INSERT INTO device_groups (name, filter, created_by, updated_by) VALUES ('g', %(filter)s, 'me', 'me')",
            {"filter": Json(filters.stored(msgspec.convert(group, Filter)))},
        )
        own = own | {"group": "g"}
    own = own or {"all": True}
    wanted = {
        f"d{n}" for n, device in enumerate(fleet) if fits(device, n, own) and (group is None or fits(device, n, group))
    }
    filter_ = msgspec.convert(own, Filter)
    assert listed(shared_db, filter_) == wanted
    assert matched(shared_db, filter_) == wanted


# One value per device: None if it never reported an inventory, otherwise {package: (installed, version_code)}.
inventories = st.none() | st.dictionaries(
    st.sampled_from(["io.player", "io.other"]), st.tuples(st.booleans(), st.sampled_from([None, 189, 190])), max_size=2
)
app_filters = st.fixed_dictionaries(
    {"package": st.sampled_from(["io.player", "io.nobodys"])},
    optional={"version_code_below": st.sampled_from([189, 190, 191])},
) | st.fixed_dictionaries({"package": st.just("io.player")}, optional={"missing": st.booleans()})


@settings(max_examples=80)
@given(fleet=st.lists(inventories, min_size=1, max_size=6), app=app_filters)
def test_app_filter_finds_the_same_devices_in_a_list_and_one_by_one(shared_db: Database, fleet, app):
    put(shared_db, [{"labels": {}, "seen": 0} for _ in fleet])
    for n, inventory in enumerate(fleet):
        if inventory is None:
            continue
        shared_db.execute("UPDATE device_last_status SET apps_hash = 'h' WHERE device_id = %(id)s", {"id": f"d{n}"})
        for package, (installed, code) in inventory.items():
            shared_db.execute(
                """INSERT INTO device_apps (device_id, package, installed, version_code, removed_at)
                VALUES (%(id)s, %(package)s, %(installed)s, %(code)s, CASE WHEN NOT %(installed)s THEN now() END)""",
                {"id": f"d{n}", "package": package, "installed": installed, "code": code},
            )

    def has(inventory: dict | None) -> bool:
        installed, code = (inventory or {}).get(app["package"], (False, None))
        if app.get("missing"):
            return inventory is not None and not installed
        below = app.get("version_code_below")
        return installed and (below is None or (code is not None and code < below))

    wanted = {f"d{n}" for n, inventory in enumerate(fleet) if has(inventory)}
    filter_ = msgspec.convert({"app": app}, Filter)
    assert listed(shared_db, filter_) == wanted
    assert matched(shared_db, filter_) == wanted


def test_null_filter_matches_every_device_and_an_unknown_one_none(db: Database):
    put(db, [{"labels": {}}])

    def says(filter_: Any) -> bool:
        sql = "SELECT device_matches('d0', %(filter)s::jsonb, 600) AS fits"
        return db.execute(sql, {"filter": None if filter_ is None else json.dumps(filter_)})[0]["fits"]

    assert says(None) is True
    assert says({"all": True}) is True
    assert says({"all": True, "later": 1}) is False
    assert says({"group": "gone"}) is False
    assert says({"selector": "a"}) is False
    assert says({"selector": "a", "requirements": [{"key": "a", "operator": "like"}]}) is False
    db.execute("UPDATE devices SET deleted_at = now()")
    assert says({"all": True}) is False


@pytest.mark.parametrize(
    ("filter_", "path"),
    [
        ({}, "$.filter"),
        ({"all": False}, "$.filter.all"),
        ({"all": True, "online": True}, "$.filter.all"),
        ({"selector": "a=="}, None),
        ({"selector": "=a"}, "$.filter.selector"),
        ({"selector": " "}, "$.filter.selector"),
        ({"app": {"package": "a.b", "missing": True, "version_code_below": 3}}, "$.filter.app"),
    ],
)
def test_empty_or_contradictory_filter_is_refused(filter_: dict, path: str | None):
    given_ = msgspec.convert(filter_, Filter)
    if path is None:
        filters.checked(given_)
        return
    with pytest.raises(Invalid) as refused:
        filters.checked(given_)
    assert refused.value.members["errors"][0].path == path


def test_unknown_group_is_refused(db: Database):
    with pytest.raises(Invalid, match=r"query.group: there is no group 'nowhere'"):
        filters.resolve(db, Filter(group="nowhere"), "query")


def test_stored_filter_is_returned_as_it_was_given():
    filter_ = Filter(selector="a in (c, b)", alias_prefix="till", app=AppFilter(package="io.player", missing=True))
    kept = filters.stored(filter_)
    assert kept["requirements"] == [{"key": "a", "operator": "in", "values": ["b", "c"]}]
    assert filters.shown(kept) == {
        "selector": "a in (c, b)",
        "alias_prefix": "till",
        "app": {"package": "io.player", "missing": True},
    }


BAD_LABELS = [
    [],
    {"Site": "x"},
    {"": "x"},
    {"9": "x"},
    {"a" * 33: "x"},
    {"a": 1},
    {"a": None},
    {"a": ["x"]},
    {"a": "x" * 201},
    {f"k{n}": "" for n in range(33)},
]


@pytest.mark.parametrize("bad", BAD_LABELS, ids=[str(bad)[:20] for bad in BAD_LABELS])
def test_schema_enforces_the_limits_of_labels(db: Database, bad: Any):
    with pytest.raises(CheckViolation):
        db.execute("INSERT INTO devices (id, alias, labels) VALUES ('d', 'd', %(labels)s)", {"labels": Json(bad)})


def test_labels_at_their_limits_are_accepted(db: Database):
    most = {f"k{n}._-": "ü\n" * 100 for n in range(31)} | {"a" * 32: ""}
    db.execute("INSERT INTO devices (id, alias, labels) VALUES ('d', 'd', %(labels)s)", {"labels": Json(most)})
    assert db.execute("SELECT labels FROM devices")[0]["labels"] == most


def test_schema_knows_every_operator(db: Database):
    """Every operator must be able to match: none may fall into the function's ELSE."""
    cases = {"in": ["1"], "notin": ["2"], "exists": [], "missing": [], "gt": ["0"], "lt": ["2"]}
    assert set(cases) == {operator.value for operator in selectors.Operator}
    for operator, wanted in cases.items():
        device = {} if operator == "missing" else {"a": "1"}
        requirement = [{"key": "a", "operator": operator, "values": wanted}]
        sql = "SELECT labels_match(%(labels)s, %(requirements)s) AS fits"
        assert db.execute(sql, {"labels": Json(device), "requirements": Json(requirement)})[0]["fits"] is True, operator
