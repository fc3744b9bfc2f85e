"""The fleet with 1, 300 and 100,000 devices: complete pages, filters, the summary, and an index for each query."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nexmdm.devices import lists
from nexmdm.devices.filters import FilterQuery
from nexmdm.devices.lists import DevicesQuery
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database
from nexmdm.runtime.pagination import PageQuery, page

from tests.support import agent
from tests.support.api import Device, call, enroll

APP = "io.unitynodes.unityapp"

STATUSES = """
INSERT INTO device_last_status (device_id, last_ts, last_seen_at, status, agent_version, battery_pct, unity_running)
SELECT id, now(), now() - CASE WHEN n % 5 = 0 THEN interval '2 hours' ELSE interval '1 minute' END,
    CASE WHEN n % 500 = 0 THEN 'error' WHEN n % 100 = 0 THEN 'warn' ELSE 'ok' END,
    CASE WHEN n % 1000 = 0 THEN 'rare' ELSE '2.' || n % 7 END, n % 101, n % 3 <> 0
FROM (SELECT id, substr(id, 2)::int AS n FROM devices) d WHERE n % 50 <> 49
"""


def populate(db: Database, count: int) -> None:
    """Add devices d0, d1, ... in another order of aliases. Every 50th has no heartbeat, every 60th is deleted."""
    db.execute(
        """INSERT INTO devices (id, alias, token_id, deleted_at)
        SELECT 'd' || n, 'kiosk-' || lpad(((n * 7919) %% %(n)s)::text, 6, '0'), 't' || n,
            CASE WHEN n %% 60 = 59 THEN now() END
        FROM generate_series(0, %(n)s - 1) AS n""",
        {"n": count},
    )
    db.execute(STATUSES)
    db.execute("ANALYZE devices, device_last_status")


def alive(count: int) -> list[int]:
    return [n for n in range(count) if n % 60 != 59]


def pages(query: dict[str, Any], path: str = "/v1/devices") -> list[dict[str, Any]]:
    items, cursor = [], None
    while True:
        answer = call("GET", path, query=query | ({"cursor": cursor} if cursor else {}))
        assert answer.status == 200, answer.text
        assert len(answer.json["items"]) <= query["limit"]
        items += answer.json["items"]
        cursor = answer.json["next_cursor"]
        if cursor is None:
            return items


@pytest.fixture
def device(url) -> Device:
    return Device(*enroll("lobby"))


# --- one device


def test_empty_fleet_has_no_devices(url):
    assert call("GET", "/v1/devices").json == {"items": [], "next_cursor": None}
    summary = call("GET", "/v1/fleet/summary").json
    assert (summary["devices"], summary["online"], summary["silent"]) == (0, 0, 0)


def test_device_is_returned_with_its_last_status(device):
    path = f"/v1/devices/{device.id}"
    before = call("GET", path).json
    assert (before["alias"], before["online"], before["last_seen_at"], before["status"]) == ("lobby", False, None, None)
    call("POST", "/v1/heartbeat", agent.heartbeat(), token=device.token)
    after = call("GET", path).json
    assert {name: after[name] for name in agent.COLUMNS} == agent.COLUMNS
    assert after["online"] is True
    facts = {name: value for name, value in agent.DEVICE_COLUMNS.items() if name != "fcm_token"}
    assert {name: after[name] for name in facts} == facts
    assert call("GET", "/v1/devices").json["items"] == [after]
    assert not {"token_id", "prior_token_id", "fcm_token"} & after.keys()


def test_unknown_and_deleted_devices_return_404(device):
    call("GET", "/v1/devices/none").problem(404)
    call("GET", "/v1/devices/none/heartbeats").problem(404)
    call("PATCH", "/v1/devices/none", {"alias": "x"}).problem(404)
    call("DELETE", "/v1/devices/none").problem(404)
    for _ in range(2):
        assert call("DELETE", f"/v1/devices/{device.id}").status == 204
    call("GET", f"/v1/devices/{device.id}").problem(404)
    call("PATCH", f"/v1/devices/{device.id}", {"alias": "x"}).problem(404)
    assert call("GET", "/v1/devices").json["items"] == []
    assert call("GET", "/v1/fleet/summary").json["devices"] == 0


def test_device_can_be_renamed(device):
    path = f"/v1/devices/{device.id}"
    assert call("PATCH", path, {"alias": "hall"}).json["alias"] == "hall"
    assert call("PATCH", path, {"alias": "hall"}).status == 200
    enroll("lobby")
    call("PATCH", path, {"alias": "lobby"}).problem(409)
    for bad in ({}, {"alias": ""}, {"alias": "x" * 201}, {"alias": None}, {"alias": "x", "status": "ok"}):
        call("PATCH", path, bad).problem(422)
    assert call("GET", path).json["alias"] == "hall"


def test_device_history_is_paged_newest_first(device):
    start = datetime.now(UTC).replace(microsecond=123456) - timedelta(hours=3)
    beats = [agent.heartbeat(start + timedelta(minutes=n)) for n in range(25)]
    call("POST", "/v1/heartbeats", {"heartbeats": beats}, token=device.token)
    found = pages({"limit": 10}, f"/v1/devices/{device.id}/heartbeats")
    assert [datetime.fromisoformat(item["ts"]) for item in found] == [
        start + timedelta(minutes=n) for n in reversed(range(25))
    ]
    assert {name: found[0][name] for name in agent.COLUMNS} == agent.COLUMNS
    assert {"bucket", "received_at"} <= found[0].keys()


# --- pages


@pytest.mark.parametrize("limit", [1, 7, 295, 500])
def test_pages_are_complete_and_in_order(db, limit):
    populate(db, 300)
    found = pages({"limit": limit})
    assert sorted(item["device_id"] for item in found) == sorted(f"d{n}" for n in alive(300))
    assert [item["alias"] for item in found] == sorted(item["alias"] for item in found)


def test_pages_are_stable_while_devices_come_and_go(db):
    """A device that exists throughout is listed exactly once."""
    populate(db, 300)
    seen, cursor, n = [], None, 0
    while True:
        page = call("GET", "/v1/devices", query={"limit": 20} | ({"cursor": cursor} if cursor else {})).json
        seen += [item["device_id"] for item in page["items"]]
        cursor, n = page["next_cursor"], n + 1
        if cursor is None:
            break
        new = {"id": f"new{n}", "before": "a" * n, "after": f"kiosk-{n:06}x"}
        db.execute("INSERT INTO devices (id, alias) VALUES (%(id)s || 'a', %(before)s), (%(id)s, %(after)s)", new)
        db.execute("UPDATE devices SET deleted_at = now() WHERE id = %(id)s", {"id": seen[0]})
    stayed = [device_id for device_id in seen if device_id.startswith("d")]
    assert sorted(stayed) == sorted(f"d{n}" for n in alive(300))


FILTERS = {
    "online": (lambda n: n % 50 != 49 and n % 5 != 0, {"online": "true"}),
    "silent or never heard": (lambda n: n % 50 == 49 or n % 5 == 0, {"online": "false"}),
    "status": (lambda n: n % 50 != 49 and n % 100 == 0 and n % 500 != 0, {"status": "warn"}),
    "agent version": (lambda n: n % 50 != 49 and n % 1000 != 0 and n % 7 == 3, {"agent_version": "2.3"}),
    "alias": (lambda n: f"{n * 7919 % 300:06}".startswith("00012"), {"alias": "kiosk-00012"}),
    "all of them": (
        lambda n: n % 50 != 49 and n % 5 != 0 and n % 1000 != 0 and n % 7 == 3 and n * 7919 % 300 < 100,
        {"online": "true", "agent_version": "2.3", "alias": "kiosk-0000", "status": "ok"},
    ),
    "nothing": (lambda n: False, {"agent_version": "none"}),
    "no pattern": (lambda n: False, {"alias": "kiosk-%"}),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filtered_pages_are_complete(db, name):
    populate(db, 300)
    wanted, query = FILTERS[name]
    found = pages({"limit": 10, **query})
    assert sorted(item["device_id"] for item in found) == sorted(f"d{n}" for n in alive(300) if wanted(n))


def test_summary_of_an_empty_fleet(db):
    summary = call("GET", "/v1/fleet/summary").json
    assert (summary["devices"], summary["by_status"], summary["by_agent_version"]) == (0, {}, {})


def test_summary_counts_the_fleet(db):
    populate(db, 300)
    summary = call("GET", "/v1/fleet/summary").json
    fleet_ = alive(300)
    heard = [n for n in fleet_ if n % 50 != 49]
    assert summary["devices"] == len(fleet_)
    assert summary["online"] == sum(n % 5 != 0 for n in heard)
    assert summary["silent"] == summary["devices"] - summary["online"]
    assert summary["low_battery"] == sum(n % 101 < lists.LOW_BATTERY_PCT for n in heard)
    assert summary["unity_down"] == sum(n % 3 == 0 for n in heard)
    assert summary["by_status"]["never"] == len(fleet_) - len(heard)
    assert sum(summary["by_status"].values()) == sum(summary["by_agent_version"].values()) == len(fleet_)


def test_summary_counts_device_owners(db, device):
    assert call("GET", "/v1/fleet/summary").json["device_owners"] == 0
    call("POST", "/v1/heartbeat", {"is_device_owner": True}, token=device.token)
    assert call("GET", "/v1/fleet/summary").json["device_owners"] == 1


# --- at 100,000 devices


class Explained:
    """Run a verb's statement under EXPLAIN and keep its plan."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.nodes: list[dict[str, Any]] = []

    def execute(self, sql, parameters=None, *, repeatable=False):
        (row,) = self._db.execute(f"EXPLAIN (ANALYZE, FORMAT JSON, BUFFERS) {sql}", parameters or {})
        (plan,) = next(iter(row.values()))
        self._add(plan["Plan"])
        return self._db.execute(sql, parameters or {}, repeatable=repeatable)

    def _add(self, node: dict[str, Any]) -> None:
        self.nodes.append(node)
        for child in node.get("Plans", []):
            self._add(child)

    def rows_touched(self) -> float:
        """The rows that the plan's scans read, including those that a filter discarded."""
        return sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in self.nodes
            if "Scan" in node["Node Type"] and "Bitmap Index" not in node["Node Type"]
        )

    def types(self) -> set[str]:
        return {node["Node Type"] for node in self.nodes}


def middle() -> str:
    return page([{"alias": "kiosk-050000"}, {}], 1, ("alias",)).next_cursor


QUERIES = {
    "first page": DevicesQuery(),
    "a page in the middle": DevicesQuery(cursor="middle"),
    "online": DevicesQuery(online=True),
    "silent": DevicesQuery(online=False),
    "a rare status": DevicesQuery(status="error"),
    "a common status": DevicesQuery(status="ok"),
    "a rare agent version": DevicesQuery(agent_version="rare"),
    "a common agent version": DevicesQuery(agent_version="2.3"),
    "an agent version that no device has": DevicesQuery(agent_version="none"),
    "an alias prefix": DevicesQuery(alias="kiosk-0512"),
    "a long alias prefix in the middle": DevicesQuery(alias="kiosk-05", cursor="middle"),
    "an alias prefix that no device has": DevicesQuery(alias="zzz"),
}


def test_every_page_uses_an_index_at_100_000_devices(db):
    populate(db, 100_000)
    for name, query in QUERIES.items():
        if query.cursor:
            query.cursor = middle()
        explained = Explained(db)
        found = lists.devices(explained, query, 600, APP)
        plan = json.dumps(explained.nodes, default=str)
        assert "Seq Scan" not in explained.types(), (name, plan)
        # A page of 100 reads the rows of a few pages, never the whole fleet.
        assert explained.rows_touched() < 5_000, (name, explained.rows_touched(), explained.types())
        assert found.items or name.endswith("no device has")


def test_device_history_uses_an_index(db):
    populate(db, 200)
    db.execute("""INSERT INTO device_heartbeats (device_id, bucket, ts)
        SELECT 'd' || n % 200, t, t FROM generate_series(0, 40000) n,
        LATERAL (SELECT date_bin('10 seconds', now(), '1970-01-01') - n * interval '4 seconds' AS t) at
        ON CONFLICT DO NOTHING""")
    db.execute("ANALYZE device_heartbeats")
    explained = Explained(db)
    found = lists.heartbeats(explained, "d7", PageQuery(limit=50))
    assert len(found.items) == 50
    assert explained.rows_touched() < 2_000, explained.types()


def test_summary_reads_each_table_once(db):
    populate(db, 5_000)
    explained = Explained(db)
    lists.summary(explained, FilterQuery(), settings.load().heartbeat_interval_seconds)
    reads = [node["Relation Name"] for node in explained.nodes if "Relation Name" in node]
    assert sorted(reads) == ["device_alerts", "device_last_status", "devices"]
