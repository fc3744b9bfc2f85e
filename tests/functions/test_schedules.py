"""Schedules over their routes and the sweep. Tests let time pass by moving the times of rows into the past."""

import contextlib
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from nexmdm.commands import schedules
from nexmdm.runtime import settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database

from local.fcm import FakeFcm
from tests.support.api import Answer, call
from tests.support.commands import enrolled, sweep
from tests.support.races import meeting

NIGHTLY = {
    "name": "nightly",
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "filter": {"all": True},
    "action": "ping",
}


@pytest.fixture
def fleet(fake_fcm: FakeFcm) -> list[str]:
    return [enrolled(f"kiosk-{n}", f"fcm:{n}")[0] for n in range(3)]


def create(**change: Any):
    return call("POST", "/v1/schedules", {**NIGHTLY, **change})


def due(db: Database, seconds_ago: float = 30) -> datetime:
    """Make the next run due since `seconds_ago`."""
    rows = db.execute(
        "UPDATE schedules SET next_run_at = date_trunc('second', now() - make_interval(secs => %(s)s))"
        " RETURNING next_run_at",
        {"s": seconds_ago},
    )
    return rows[0]["next_run_at"]


def runs() -> list[dict[str, Any]]:
    return call("GET", "/v1/schedules/nightly/runs").json["items"]


def test_schedule_shows_its_next_runs(fleet):
    made = create()
    assert made.status == 201
    assert made.json["next_run_at"] == made.json["next_runs"][0]
    assert len(made.json["next_runs"]) == 5
    assert made.json["last_run"] is None
    assert (made.json["action"], made.json["answered"], made.json["delivery"]) == ("ping", "at_once", "at_most_once")
    assert call("GET", "/v1/schedules/nightly").json == made.json
    assert [item["name"] for item in call("GET", "/v1/schedules").json["items"]] == ["nightly"]
    create().problem(409)


def test_sweep_starts_a_due_run_once_as_a_bulk_command(fake_fcm: FakeFcm, fleet, db: Database):
    schedule_id = create().json["schedule_id"]
    assert sweep()["started"] == 0
    at = due(db)

    assert sweep()["started"] == 1
    assert sweep()["started"] == 0

    (run,) = runs()
    request_id = f"schedule.{schedule_id}.{int(at.timestamp())}"
    assert (run["status"], run["request_id"], run["states"]) == ("started", request_id, {"sent": 3})
    assert datetime.fromisoformat(run["scheduled_for"]) == at
    assert {post.data["request_id"] for post in fake_fcm.requests()} == {f"{request_id}:{id_}" for id_ in fleet}
    shown = call("GET", "/v1/schedules/nightly").json
    assert shown["last_run"]["request_id"] == request_id
    assert datetime.fromisoformat(shown["next_run_at"]) > datetime.now(UTC)
    assert call("GET", f"/v1/commands/{request_id}").json["created_by"] == "system:sweep"


def test_late_run_is_started_within_the_grace_and_missed_beyond_it(fleet, db: Database):
    create()
    due(db, seconds_ago=290)
    sweep()
    due(db, seconds_ago=310)
    sweep()
    assert [run["status"] for run in runs()] == ["started", "missed"] or [run["status"] for run in runs()] == [
        "missed",
        "started",
    ]
    missed = next(run for run in runs() if run["status"] == "missed")
    assert missed["request_id"] is None


def test_outage_leaves_one_missed_row_and_starts_the_latest_run_in_grace(fake_fcm, fleet, db: Database):
    create(cron="* * * * *")
    due(db, seconds_ago=7200)
    assert sweep()["started"] == 1
    assert [run["status"] for run in runs()] == ["started", "missed"]
    assert len(fake_fcm.requests()) == 3


def test_older_due_runs_are_missed_even_within_the_grace(fake_fcm: FakeFcm, fleet, db: Database):
    create(cron="* * * * *")
    at = due(db, seconds_ago=180)
    assert sweep()["started"] == 1
    started, missed = runs()
    assert (started["status"], missed["status"]) == ("started", "missed")
    assert datetime.fromisoformat(missed["scheduled_for"]) == at
    assert len(fake_fcm.requests()) == 3


def test_no_run_is_started_if_the_latest_is_beyond_the_grace(fake_fcm, fleet, db: Database):
    half_an_hour_ago = datetime.now(UTC) - timedelta(minutes=30)
    create(cron=f"{half_an_hour_ago.minute} * * * *")
    due(db, seconds_ago=7200)
    assert sweep()["started"] == 0
    assert [run["status"] for run in runs()] == ["missed"]
    assert fake_fcm.requests() == []


def test_filter_without_a_match_is_an_empty_run(fake_fcm: FakeFcm, fleet, db: Database):
    create(filter={"alias_prefix": "nobody-"})
    due(db)
    assert sweep()["started"] == 1
    (run,) = runs()
    assert (run["status"], run["request_id"]) == ("empty", None)
    assert fake_fcm.requests() == []


def test_filter_is_evaluated_at_each_run(fake_fcm: FakeFcm, fleet, db: Database):
    create(filter={"alias_prefix": "kiosk-"})
    enrolled("kiosk-new", "fcm:new")
    due(db)
    sweep()
    assert len(fake_fcm.requests()) == 4


def test_one_time_command_runs_once(fake_fcm: FakeFcm, fleet, db: Database):
    at = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    made = create(cron=None, at=at.isoformat()).json
    assert [datetime.fromisoformat(run) for run in made["next_runs"]] == [at]
    db.execute("UPDATE schedules SET at = now() - interval '20 s', next_run_at = now() - interval '20 s'")
    sweep(), sweep()
    assert len(fake_fcm.requests()) == 3
    assert call("GET", "/v1/schedules/nightly").json["next_run_at"] is None


def test_concurrent_sweeps_start_a_run_once(url: str, fake_fcm: FakeFcm, fleet, db: Database):
    create()
    config, barrier, started = settings.load(), threading.Barrier(8), []
    connections = [Database(url) for _ in range(8)]
    for connection in connections:
        connection.execute("SELECT 1")

    def start(own: Database) -> None:
        barrier.wait()
        started.append(schedules.start_due(own, Actor("system:sweep"), config, 10))

    due(db)
    threads = [threading.Thread(target=start, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()
    assert sum(started) == 1
    assert db.execute("SELECT count(*) AS n FROM command_batches") == [{"n": 1}]


def test_sweep_skips_a_schedule_that_another_sweep_holds(url: str, fleet, db: Database):
    create()
    due(db)
    with contextlib.closing(psycopg2.connect(url)) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT FROM schedules FOR UPDATE")
        db.execute("SET lock_timeout = '5s'")
        assert schedules.start_due(db, Actor("system:sweep"), settings.load(), 10) == 0


def test_same_instant_never_starts_twice(fake_fcm: FakeFcm, fleet, db: Database):
    """As after a restore of the schedule's row alone: the request id of the run prevents a second start."""
    create()
    at = due(db)
    sweep()
    db.execute("UPDATE schedules SET next_run_at = %(at)s", {"at": at})
    assert sweep()["started"] == 0
    assert len(fake_fcm.requests()) == 3


def test_run_now_runs_once_per_key_and_keeps_the_next_run(fake_fcm: FakeFcm, fleet):
    before = create().json["next_run_at"]
    key = {"Idempotency-Key": "now-1"}
    first = call("POST", "/v1/schedules/nightly/run", headers=key)
    again = call("POST", "/v1/schedules/nightly/run", headers=key)
    assert (first.status, again.status) == (202, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json["request_id"] == first.json["request_id"]
    assert len(fake_fcm.requests()) == 3
    assert call("GET", "/v1/schedules/nightly").json["next_run_at"] == before


def test_change_recomputes_the_next_run_and_disabling_clears_it(fleet, db: Database):
    create()
    changed = call("PATCH", "/v1/schedules/nightly", {"cron": "0 4 * * *"}).json
    assert "T03:00" in changed["next_run_at"] or "T02:00" in changed["next_run_at"]  # 4:00 in Berlin
    off = call("PATCH", "/v1/schedules/nightly", {"enabled": False}).json
    assert (off["next_run_at"], off["next_runs"]) == (None, [])
    assert sweep()["started"] == 0
    assert call("PATCH", "/v1/schedules/nightly", {"enabled": True}).json["next_run_at"] is not None
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    once = call("PATCH", "/v1/schedules/nightly", {"at": at}).json
    assert (once["cron"], len(once["next_runs"])) == (None, 1)
    call("PATCH", "/v1/schedules/nightly", {"at": at, "cron": "0 3 * * *"}).problem(422)


def test_due_run_is_started_after_a_change_that_keeps_the_times(fake_fcm: FakeFcm, fleet, db: Database):
    create()
    at = due(db)
    call("PATCH", "/v1/schedules/nightly", {"ttl_seconds": 900})
    assert sweep()["started"] == 1
    assert [(run["status"], datetime.fromisoformat(run["scheduled_for"])) for run in runs()] == [("started", at)]
    assert len(fake_fcm.requests()) == 3


def test_due_one_time_command_runs_after_a_change(fake_fcm: FakeFcm, fleet, db: Database):
    create(cron=None, at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    db.execute("UPDATE schedules SET at = now() - interval '20 s', next_run_at = now() - interval '20 s'")
    call("PATCH", "/v1/schedules/nightly", {"ttl_seconds": 900})
    assert sweep()["started"] == 1
    assert len(fake_fcm.requests()) == 3


@pytest.mark.parametrize("change", [{"cron": "0 4 * * *"}, {"timezone": "UTC"}, {"enabled": False}])
def test_due_run_is_missed_if_its_schedule_gets_other_times_or_is_disabled(fleet, db: Database, change: dict[str, Any]):
    create()
    at = due(db)
    changed = call("PATCH", "/v1/schedules/nightly", change).json
    assert changed["last_run"]["status"] == "missed"
    assert datetime.fromisoformat(changed["last_run"]["scheduled_for"]) == at
    assert sweep()["started"] == 0
    assert len(runs()) == 1


def test_deleted_schedule_is_gone_and_frees_its_name(fleet, db: Database):
    create()
    due(db)
    sweep()
    assert call("DELETE", "/v1/schedules/nightly").status == 204
    call("GET", "/v1/schedules/nightly").problem(404)
    call("DELETE", "/v1/schedules/nightly").problem(404)
    assert create().status == 201
    assert runs() == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"cron": "0 3 30 2 *"}, "$.cron"),
        ({"cron": None}, "$"),
        ({"at": "2026-01-01T00:00:00Z"}, "$"),
        ({"cron": None, "at": "2020-01-01T00:00:00Z"}, "$.at"),
        ({"timezone": "Mars/Olympus"}, "$.timezone"),
        ({"filter": {}}, "$.filter"),
        ({"filter": {"group": "nobodys"}}, "$.filter.group"),
        ({"action": "fly"}, "$.action"),
        ({"action": "ring", "params": {"duration": 1}}, "$.params.duration"),
        ({"action": "wifi_connect", "params": {"ssid": "a", "password": "correct horse"}}, "$.params.password"),
        ({"action": "remote_control", "params": {"command": "text", "text": "x"}}, "$.params.text"),
        ({"action": "reboot", "delivery": "until_answered"}, "$.delivery"),
        ({"name": "a b"}, "$.name"),
        ({"ttl_seconds": 0}, "$.ttl_seconds"),
    ],
)
def test_invalid_schedule_is_refused_with_its_field(fleet, change: dict[str, Any], path: str):
    create(**change).problem(422, path)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_schedule_is_refused_if_its_group_is_deleted_meanwhile(url: str, fleet, method: str):
    call("PUT", "/v1/groups/tills", {"filter": {"all": True}})
    of_group = {"filter": {"group": "tills"}}
    if method == "PATCH":
        create()

    def use(_: Database) -> Answer:
        return create(**of_group) if method == "POST" else call("PATCH", "/v1/schedules/nightly", of_group)

    answer = meeting(url, lambda tx: tx.execute("DELETE FROM device_groups"), use)
    answer.problem(422, "$.filter.group")


def test_schedule_needs_the_sweep(fleet, monkeypatch):
    monkeypatch.setenv("SCHEDULES_ENABLED", "false")
    settings.load.cache_clear()
    create().problem(409)


def test_request_ids_of_schedules_are_reserved(fleet):
    body = {"action": "ping", "request_id": "schedule.1.2"}
    call("POST", f"/v1/devices/{fleet[0]}/commands", body).problem(422, "$.request_id")
    call("POST", "/v1/commands", {**body, "filter": {"all": True}}).problem(422, "$.request_id")


def test_each_schedule_change_leaves_an_event(fleet, db: Database):
    create()
    for _ in range(2):
        call("PATCH", "/v1/schedules/nightly", {"ttl_seconds": 60})
    due(db)
    sweep()
    call("DELETE", "/v1/schedules/nightly")
    events = db.execute(
        "SELECT actor, action, object, after FROM operator_events WHERE action LIKE 'schedule.%%' ORDER BY event_id"
    )
    assert [event["action"] for event in events] == [
        "schedule.create",
        "schedule.change",
        "schedule.run",
        "schedule.delete",
    ]
    assert {event["object"] for event in events} == {"schedule:nightly"}
    assert events[2]["actor"] == "system:sweep"
    assert events[2]["after"]["status"] == "started"


def test_failing_schedule_is_missed_and_does_not_stop_others(fake_fcm: FakeFcm, fleet, db: Database):
    create()
    create(name="another", action="wake")
    due(db)
    db.execute("UPDATE schedules SET timezone = 'Nowhere/Any' WHERE name = 'nightly'")
    db.execute("UPDATE schedules SET next_run_at = next_run_at - interval '1 s' WHERE name = 'nightly'")
    sweep()
    assert {post.data["action"] for post in fake_fcm.requests()} == {"wake"}


def test_schedule_that_times_out_does_not_stop_others(fake_fcm: FakeFcm, fleet, db: Database):
    slow = create().json["schedule_id"]
    create(name="another", action="wake")
    due(db)
    db.execute("UPDATE schedules SET next_run_at = next_run_at - interval '1 s' WHERE name = 'nightly'")
    db.execute("""CREATE FUNCTION time_out() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'query_canceled'; END $$""")
    db.execute(f"""CREATE TRIGGER time_out BEFORE INSERT ON command_batches FOR EACH ROW
        WHEN (NEW.request_id LIKE 'schedule.{slow}.%') EXECUTE FUNCTION time_out()""")
    assert sweep()["started"] == 1
    assert [run["status"] for run in runs()] == ["missed"]
    assert {post.data["action"] for post in fake_fcm.requests()} == {"wake"}
