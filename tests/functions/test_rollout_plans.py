"""Staged rollouts that advance automatically: each stage begins once despite crashes, races and operators."""

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nexmdm.builds import installations, plans, publishing, rollouts
from nexmdm.runtime import actor, settings
from nexmdm.runtime.database import Database

from tests.support.api import ROOT, Answer, call
from tests.support.builds import act, promoted, published
from tests.support.races import errors, meeting, race
from tests.support.s3 import Bucket


@pytest.fixture
def fleet(db: Database) -> None:
    db.execute("""
        INSERT INTO devices (id, alias, token_id, confirmed_at)
        SELECT 'device-' || n, 'kiosk-' || n, encode(sha256(convert_to('token-' || n, 'UTF8')), 'hex'), now()
        FROM generate_series(1, 40) AS n
    """)


@pytest.fixture
def build(bucket: Bucket, fleet: None) -> int:
    return promoted(2, percent=0)


STAGES_JSON = [{"percent": 20, "hold_hours": 24}, {"percent": 50, "hold_hours": 24}, {"percent": 100}]


def begin(build_id: int, **body: Any) -> Answer:
    return act(build_id, "rollout", stages=STAGES_JSON, **body)


def advance(db: Database) -> int:
    return plans.advance(db, settings.load(), actor.system("sweep"))


def a_day_later(db: Database) -> None:
    db.execute("UPDATE apk_versions SET plan_stage_at = plan_stage_at - interval '24 hours' WHERE plan IS NOT NULL")


def shown(build_id: int) -> dict[str, Any]:
    return call("GET", f"/v1/apk/builds/{build_id}").json


def steps(db: Database) -> list[dict[str, Any]]:
    rows = db.execute("SELECT actor, after FROM operator_events WHERE action = 'build.stage' ORDER BY event_id")
    return [{"actor": row["actor"].partition(":")[0], **row["after"]} for row in rows]


@pytest.mark.parametrize("case", ["asked again", "deleted"])
def test_each_enrolled_device_counts_once_with_its_last_answer(build: int, db: Database, case: str):
    stages = [{"percent": 20, "hold_hours": 24}, {"percent": 50, "hold_hours": 24, "min_completed_percent": 100}]
    act(build, "rollout", stages=[*stages, {"percent": 100}], install=True)
    db.execute("UPDATE apk_installations SET status = 'failed', completed_at = now()")
    a_day_later(db)
    assert advance(db) == 1  # asks the failed ones again
    a_day_later(db)
    assert advance(db) == 0
    again = """SELECT max(id) AS id, device_id FROM apk_installations
               GROUP BY device_id HAVING count(*) > 1 ORDER BY device_id"""
    assert db.execute(again), "no device was asked twice"
    late = db.execute(again)[0] if case == "deleted" else {"id": None, "device_id": None}
    db.execute(
        """UPDATE apk_installations SET status = 'completed', completed_at = now()
           WHERE id IN (SELECT max(id) FROM apk_installations GROUP BY device_id) AND id IS DISTINCT FROM %(id)s""",
        late,
    )
    if case == "deleted":
        assert advance(db) == 0
        assert call("DELETE", f"/v1/devices/{late['device_id']}").status == 204
    assert advance(db) == 1


def test_plan_advances_from_stage_to_stage(build: int, db: Database):
    answer = begin(build)
    assert answer.status == 200, answer.text
    assert (answer.json["staged_rollout_percent"], answer.json["plan"]["stage"]) == (20, 1)
    assert advance(db) == 0
    for percent, stage in ((50, 2), (100, 3)):
        a_day_later(db)
        assert advance(db) == 1
        assert advance(db) == 0, "a sweep takes one step, and the next stage has its own hold"
        assert (shown(build)["staged_rollout_percent"], shown(build)["plan"]["stage"]) == (percent, stage)
    assert shown(build)["plan"]["end"] == "completed"
    a_day_later(db)
    assert advance(db) == 0
    assert [(step["actor"], step["staged_rollout_percent"]) for step in steps(db)] == [
        ("arn", 20),
        ("system", 50),
        ("system", 100),
    ]


def test_each_stage_sends_install_commands_once(build: int, db: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PUBLIC_URL", "https://mdm.example.org")
    settings.load.cache_clear()
    begin(build, install=True)
    monkeypatch.delenv("PUBLIC_URL")
    settings.load.cache_clear()
    for _ in range(2):
        a_day_later(db)
        advance(db)
    [row] = db.execute("SELECT count(*) AS n, count(DISTINCT device_id) AS devices FROM apk_installations")
    assert (row["n"], row["devices"]) == (40, 40)
    urls = db.execute("SELECT DISTINCT split_part(payload ->> 'download_url', '?', 1) AS url FROM fcm_dispatches")
    assert urls == [{"url": f"https://mdm.example.org/v1/apk/download/{build}"}], (
        "the URL is not the one stored with the plan"
    )
    assert db.execute("SELECT count(*) AS n FROM command_batches")[0]["n"] == 3


def test_stage_advances_only_if_enough_installations_are_completed(build: int, db: Database):
    stages = [{"percent": 50, "hold_hours": 1, "min_completed_percent": 80}, {"percent": 100}]
    act(build, "rollout", stages=stages, install=True)
    a_day_later(db)
    assert advance(db) == 0
    db.execute("UPDATE apk_installations SET status = 'completed'")
    assert advance(db) == 1


@pytest.mark.parametrize(("earlier", "rest", "goes_on"), [("completed", "pending", 0), ("pending", "completed", 1)])
def test_installations_from_before_a_take_over_do_not_count(
    build: int, db: Database, earlier: str, rest: str, goes_on: int
):
    """They count neither as started nor as completed: only the device that was not taken over decides."""
    stages = [{"percent": 50, "hold_hours": 1, "min_completed_percent": 80}, {"percent": 100}]
    act(build, "rollout", stages=stages, install=True)
    a_day_later(db)
    [one, *others] = db.execute("SELECT device_id FROM apk_installations")
    assert len(others) > 4, "too few other devices to decide at 80 percent"
    db.execute(
        "UPDATE apk_installations SET status = CASE WHEN device_id = %(id)s THEN %(rest)s ELSE %(earlier)s END",
        {"id": one["device_id"], "rest": rest, "earlier": earlier},
    )
    db.execute("UPDATE devices SET taken_over_at = clock_timestamp() WHERE id <> %(id)s", {"id": one["device_id"]})
    assert advance(db) == goes_on


@pytest.mark.parametrize(
    ("what", "body", "end"),
    [
        ("rollout", {"staged_rollout_percent": 30}, "a percentage set by hand"),
        ("rollout", {"staged_rollout_percent": 20}, "a percentage set by hand"),
        ("rollback", {"reason": "it hangs"}, "rolled back"),
    ],
)
def test_operator_change_ends_a_plan(
    bucket: Bucket, fleet: None, db: Database, what: str, body: dict[str, Any], end: str
):
    promoted(1)
    build_id = promoted(2, percent=0)
    begin(build_id)
    act(build_id, what, **body)
    assert shown(build_id)["plan"]["end"] == end
    event = db.execute("SELECT after FROM operator_events ORDER BY event_id DESC LIMIT 1")[0]
    assert event["after"]["plan"] == "ended"
    a_day_later(db)
    assert advance(db) == 0


def test_promoting_another_build_ends_a_plan(build: int, db: Database):
    begin(build)
    newer = published(3)
    act(newer, "promote", staged_rollout_percent=0)
    assert shown(build)["plan"]["end"] == f"build {newer} took its place"
    a_day_later(db)
    assert advance(db) == 0


def test_paused_plan_waits(build: int, db: Database):
    begin(build)
    act(build, "pause", reason="to see")
    a_day_later(db)
    assert advance(db) == 0
    begin(build).problem(409)
    act(build, "resume")
    events = db.execute("SELECT action, after FROM operator_events ORDER BY event_id DESC LIMIT 2")
    assert [event["after"]["plan"] for event in events] == ["goes on", "waits"]
    assert advance(db) == 1


def test_plan_waits_for_its_window(build: int, db: Database):
    now = datetime.now(UTC)
    tomorrow = plans.DAYS[(now + timedelta(days=2)).weekday()]
    window = {"timezone": "UTC", "days": [tomorrow], "from": "01:00", "to": "02:00"}
    answer = begin(build, window=window)
    assert (answer.json["plan"]["stage"], answer.json["staged_rollout_percent"]) == (0, 0)
    assert answer.json["plan"]["window"] == window
    assert advance(db) == 0


def test_plan_may_have_a_filter(build: int, db: Database):
    begin(build, filter={"alias_prefix": "kiosk-1"}, install=True)
    for _ in range(2):
        a_day_later(db)
        advance(db)
    rows = db.execute("SELECT DISTINCT d.alias FROM apk_installations i JOIN devices d ON d.id = i.device_id")
    assert len(rows) == 11
    assert all(row["alias"].startswith("kiosk-1") for row in rows)


def test_invalid_plans_are_refused(build: int):
    for body, path in (
        ({"stages": []}, "$.stages"),
        ({"stages": [{"percent": 0}]}, "$.stages[0].percent"),
        ({"stages": [{"percent": 10, "hold_hours": 1}]}, "$.stages[0].hold_hours"),
        ({"stages": STAGES_JSON, "staged_rollout_percent": 5}, "$.staged_rollout_percent"),
        ({"staged_rollout_percent": 5, "window": window_of("UTC")}, "$.window"),
        ({"stages": STAGES_JSON, "window": window_of("Mars/Olympus")}, "$.window.timezone"),
    ):
        act(build, "rollout", **body).problem(422, path)


def window_of(zone: str) -> dict[str, Any]:
    return {"timezone": zone, "days": ["mon"], "from": "01:00", "to": "02:00"}


# --- crashes and races


def test_concurrent_sweeps_take_one_step(build: int, db: Database, url: str):
    begin(build, install=True)
    a_day_later(db)
    results = race(url, *[advance for _ in range(6)])
    assert errors(results) == []
    assert sum(results) == 1
    assert [step["stage"] for step in steps(db)] == [1, 2]


SWEEP = """
import sys
from nexmdm.builds import plans
from nexmdm.runtime import actor, database, settings
db = database.connection()
print("ready", flush=True)
sys.stdin.readline()
plans.advance(db, settings.load(), actor.system("sweep"))
"""


OTHERS = """
SELECT count(*) AS n FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


@pytest.mark.parametrize("wait_ms", [0, 2, 4, 6, 8, 10, 14, 20, 30, 60])
def test_killed_sweep_leaves_a_whole_step_or_none(build: int, db: Database, url: str, wait_ms: int):
    begin(build, install=True)
    a_day_later(db)
    environment = {**os.environ, "DATABASE_URL": url}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SWEEP], cwd=ROOT, env=environment, stdin=pipe, stdout=pipe) as sweep:
        assert sweep.stdin is not None
        assert sweep.stdout is not None
        assert sweep.stdout.readline() == b"ready\n"
        sweep.stdin.write(b"\n")
        sweep.stdin.flush()
        threading.Event().wait(wait_ms / 1000)  # the kill must be harmless wherever it finds the process
        sweep.send_signal(signal.SIGKILL)
    while db.execute(OTHERS)[0]["n"]:  # the server rolls back, or commits what was sent
        threading.Event().wait(0.01)
    [state] = db.execute("SELECT plan_stage, staged_rollout_percent FROM apk_versions WHERE id = %(id)s", {"id": build})
    batches = db.execute("SELECT count(*) AS n FROM command_batches")[0]["n"]
    assert (state["plan_stage"], state["staged_rollout_percent"], batches, len(steps(db))) in (
        (0, 20, 1, 1),
        (1, 50, 2, 2),
    )
    advance(db)
    assert [step["stage"] for step in steps(db)] == [1, 2]
    assert db.execute("SELECT count(*) AS n FROM command_batches")[0]["n"] == 2


def test_installing_again_waits_for_no_installation(build: int, url: str, db: Database):
    """It holds the build, for which the sweep waits while it holds the installations that it ends."""
    assert act(build, "rollout", staged_rollout_percent=50, install=True, request_id="first").status == 202
    db.execute("UPDATE apk_installations SET initiated_at = initiated_at - interval '25 hours'")
    db.execute("""
        INSERT INTO device_apps (device_id, package, version_name, version_code, installed)
        SELECT device_id, 'com.nexmdm', '2.0', 2, true FROM apk_installations ORDER BY id LIMIT 3
    """)
    found = publishing.find(db, str(build))
    again = rollouts.Install(request_id="again", base_url="https://example.com", agent_package="com.nexmdm")
    ended = meeting(
        url,
        lambda tx: tx.execute("SELECT FROM apk_versions FOR UPDATE"),
        lambda own: installations.settle(own, settings.load(), actor.system("sweep")),
        then=lambda tx: rollouts.ask(tx, found, 50, actor.operator("me"), again, 60),
    )
    first = db.execute("SELECT count(*) AS n FROM apk_installations WHERE request_id ^@ 'first'")[0]["n"]
    assert ended == first
    rows = db.execute("SELECT status, count(*) AS n FROM apk_installations WHERE request_id ^@ 'first' GROUP BY 1")
    assert {row["status"]: row["n"] for row in rows} == {"completed": 3, "unknown": first - 3}
