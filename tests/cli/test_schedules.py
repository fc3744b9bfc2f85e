import pytest


@pytest.fixture(scope="module", autouse=True)
def phones(stack):
    return [stack.enroll(f"plan-{letter}") for letter in "ab"]


def test_schedule_is_created_changed_run_and_deleted(data, run):
    made = data(
        "schedules", "create", "nightly", "ring", "duration=10", "--cron", "0 3 * * *", "-z", "Europe/Berlin",
        "--alias-prefix", "plan-",
    )  # fmt: skip
    assert (made["action"], made["params"], len(made["next_runs"])) == ("ring", {"duration": 10}, 5)
    shown = run("schedules", "show", "nightly").stdout
    assert "Europe/Berlin" in shown
    assert "nightly" in run("schedules", "list").stdout

    started = data("schedules", "run", "nightly", "--run-id", "by-hand")
    assert started["status"] == "started"
    assert data("schedules", "run", "nightly", "--run-id", "by-hand")["request_id"] == started["request_id"]
    assert data("commands", "show", started["request_id"])["device_count"] == 2
    assert [item["request_id"] for item in data("schedules", "runs", "nightly")] == [started["request_id"]]

    assert data("schedules", "change", "nightly", "--cron", "30 4 * * *")["cron"] == "30 4 * * *"
    assert data("schedules", "disable", "nightly")["next_run_at"] is None
    assert data("schedules", "enable", "nightly")["next_run_at"] is not None
    run("schedules", "delete", "nightly", "--yes")
    run("schedules", "show", "nightly", code=3)


def test_time_of_one_run_needs_no_seconds(data, run):
    once = ("--at", "2099-12-24T18:00", "-z", "Europe/Berlin", "--all")
    assert data("schedules", "create", "holidays", "set_dnd", "enable=true", *once)["at"] == "2099-12-24T17:00:00Z"
    assert data("schedules", "change", "holidays", "--at", "2099-12-25T18:00")["at"] == "2099-12-25T17:00:00Z"
    run("schedules", "delete", "holidays", "--yes")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("x", "ping", "--cron", "0 3 * * *"), 2, "No filter was given"),
        (("x", "ping", "--all"), 2, "--cron or --at"),
        (("x", "ping", "--all", "--cron", "0 3 30 2 *"), 4, "$.cron"),
        (("x", "ping", "--all", "--at", "at six"), 4, "$.at"),
        (("x", "ping", "--all", "--cron", "0 3 * * *", "-z", "Mars/Olympus"), 4, "$.timezone"),
    ],
)
def test_invalid_schedule_is_named(run, arguments, code, said):
    assert said in run("schedules", "create", *arguments, code=code).stderr
