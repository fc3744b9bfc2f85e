"""Alert rules, mutes, acknowledgments, events and the fleet's history on the command line."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from nexmdm_cli.sparkline import sparkline

from tests.support.postgres import run_sql


@pytest.fixture(scope="module", autouse=True)
def phone(stack):
    return stack.enroll("watched-one")


def test_rule_is_created_changed_and_deleted(data, run):
    made = data(
        "alert-rules", "create", "tills", "low_battery", "--threshold", "30", "--for", "600", "--severity", "critical",
        "--route", "ops", "--quiet", "22:00-06:00@Europe/Berlin", "--alias-prefix", "till-",
    )  # fmt: skip
    assert (made["threshold"], made["for_seconds"], made["routes"]) == (30, 600, ["ops"])
    assert made["quiet_hours"] == {"timezone": "Europe/Berlin", "from": "22:00", "to": "06:00"}
    assert "22:00 to 06:00 Europe/Berlin" in run("alert-rules", "show", "tills").stdout
    assert "tills" in run("alert-rules", "list").stdout
    assert data("alert-rules", "change", "tills", "--threshold", "20")["threshold"] == 20
    assert data("alert-rules", "disable", "tills")["enabled"] is False
    assert data("alert-rules", "delete", "tills", "--yes") == {"name": "tills"}
    run("alert-rules", "show", "tills", code=3)
    actions = [event["action"] for event in data("events", "--object", "alert_rule:tills")]
    assert actions == ["alert_rule.delete", "alert_rule.change", "alert_rule.change", "alert_rule.create"]


def test_unreadable_quiet_hours_are_refused_with_the_format(run):
    assert "22:00-06:00@Europe/Berlin" in run(
        "alert-rules", "create", "x", "silent", "--quiet", "at night", code=2
    ).stderr  # fmt: skip
    run("alert-rules", "create", "x", "silent", "--quiet", "22:00-06:00@Mars/Base", code=4)


def test_threshold_that_is_no_number_is_refused(run):
    for threshold in ("nan", "inf"):
        refused = run("alert-rules", "create", "x", "low_battery", "--threshold", threshold, code=2)
        assert "a number that JSON does not have" in refused.stderr


def test_mute_names_its_devices_and_can_be_ended(data, run):
    run("mutes", "create", "--hours", "2", "--reason", "x", code=2)
    made = data("mutes", "create", "--hours", "2", "--reason", "the hall is rewired", "--alias-prefix", "watched-")
    assert "the hall is rewired" in run("mutes", "list").stdout
    assert data("mutes", "delete", str(made["mute_id"])) == {"mute_id": made["mute_id"]}
    assert "Nothing is muted." in run("mutes", "list").stderr


def test_acknowledgment_is_shown_to_other_operators(stack, data, run):
    run_sql(
        stack.database,
        "INSERT INTO device_alerts (device_id, condition, rule)"
        " SELECT id, 'silent', 'silent' FROM devices WHERE alias = 'watched-one'",
    )
    (alert,) = data("alerts", "--device", "watched-one")
    assert "open, known" in run("ack", str(alert["alert_id"]), "--note", "a new charger is coming").stdout
    assert data("alerts", "--device", "watched-one")[0]["ack_note"] == "a new charger is coming"
    run("ack", "999999", code=3)


@contextmanager
def following(*options: str) -> Iterator[IO[str]]:
    """What `nexmdm events --follow` prints; it is killed in the end."""
    command = [sys.executable, "-m", "nexmdm_cli.main", "events", "--follow", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout
        finally:
            process.kill()


def test_events_are_followed_from_another_terminal(data, operator):
    data("groups", "set", "followed", "--alias-prefix", "watched-")
    with following("--json", "--object", "group:followed") as lines:
        assert "group.create" in lines.readline()
        data("groups", "set", "followed", "--alias-prefix", "watched-o")
        assert "group.update" in lines.readline()


def test_no_event_is_lost_between_two_looks(stack, operator):
    insert = "INSERT INTO operator_events (actor, action, object) SELECT 'system:test', 'test.burst', 'test:' || n"
    run_sql(stack.database, f"{insert} FROM generate_series(1, 1) AS n")
    with following("--action", "test.burst") as lines:
        assert "test:1 " in lines.readline()
        run_sql(stack.database, f"{insert} FROM generate_series(2, 1001) AS n")
        for n in range(2, 1002):
            assert f"test:{n} " in lines.readline()


def test_followed_events_control_no_terminal(stack, operator):
    harm = "E'system:\\x1b[2J', E'test.\\x1b[2J', E'test:\\x1b]0;x', '{\"name\": \"\\u001b[2J\"}'"
    run_sql(stack.database, f"INSERT INTO operator_events (actor, action, object, after) VALUES ({harm})")
    with following("--actor", "system:\x1b*") as lines:
        line = lines.readline()
    assert "test.�[2J" in line
    assert "\x1b" not in line


def test_status_shows_the_last_week(stack, run, settled):
    run_sql(
        stack.database,
        "INSERT INTO fleet_history (hour, grp, devices, online, silent, low_battery, app_down, heartbeats, info,"
        " warning, critical) SELECT now() - make_interval(hours => n), '', 10, n / 50 * 5, 0, 0, 0, 0, 0, 0, 0"
        " FROM generate_series(1, 100) AS n",
    )
    shown = run("status", "--history", "--max-silent", "100").stdout
    assert {"▁", "█"} <= set(shown)
    refused = run("status", "--history", "-l", "site=berlin", code=2)
    assert "--history exists for the fleet and for groups, not for labels." in refused.stderr


@pytest.mark.parametrize(
    ("values", "bounds", "bars"),
    [
        ([], (), "nothing was recorded yet"),
        ([None], (), "nothing was recorded yet"),
        ([0, 0], (), "▁▁"),
        ([1, 4, 8], (), "▂▅█"),
        ([-90, None, -50], (None,), "▁ █"),
        ([50, 100], (0, 100), "▅█"),
        ([1, 3] * 56, (), "█" * 56),
    ],
)
def test_sparkline_is_drawn_between_its_bounds(values: list[float | None], bounds: tuple[float | None], bars: str):
    assert sparkline(values, *bounds) == bars


def test_device_shows_its_last_week(stack, run, data):
    phone = data("devices", "show", "watched-one")["device_id"]
    run_sql(
        stack.database,
        f"""INSERT INTO device_history (device_id, hour, reports, last_ts, battery_pct_min, battery_pct_max,
                battery_pct_last) SELECT '{phone}', date_trunc('hour', now(), 'UTC') - make_interval(hours => n), 6,
                now(), 10, 90, 50 FROM generate_series(49, 168) AS n""",
    )
    out = run("devices", "history", "watched-one").stdout
    assert "10 to 90 %, last 50 %" in out
    assert "▅" * 40 + " " * 16 in out
    assert "nothing was reported" in out
    assert len(data("devices", "history", "watched-one", "--days", "3")["points"]) == 23
    run("devices", "history", "watched-one", "--days", "91", code=2)
