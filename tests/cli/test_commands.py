import csv
import io

import pytest

from local.fcm import Behaviour
from tests.support.postgres import run_sql


@pytest.fixture(scope="module")
def phone(stack):
    return stack.enroll("cmd-a")


@pytest.fixture(autouse=True)
def _taken(stack, phone):
    stack.fake_fcm.forget()
    phone.answer = "success"


def waiting(data, stack, phone):
    """The id of a command that waits for its next attempt."""
    stack.fake_fcm.behave(phone.address, Behaviour("429", retry_after=1, times=1))
    return data("send", "wake", "--to", "cmd-a", "--no-wait")["request_id"]


def test_list_and_show(data, run, stack, phone):
    done = data("send", "ping", "--to", "cmd-a")["request_id"]
    stack.fake_fcm.behave(phone.address, "400")
    failed = data("send", "wake", "--to", "cmd-a", "--no-wait")["request_id"]
    listed = data("commands", "list", "--device", "cmd-a")
    assert [c["request_id"] for c in listed] == [failed, done]
    assert [c["request_id"] for c in data("commands", "list", "--device", "cmd-a", "--state", "failed")] == [failed]
    assert len(data("commands", "list", "--device", "cmd-a", "--limit", "1")) == 1
    table = run("commands", "list", "--device", "cmd-a").stdout.splitlines()
    assert table[2].split()[:5] == [done, "cmd-a", "ping", "sent", "success"]
    assert data("commands", "show", done)["result"] == "success"
    assert "INVALID_ARGUMENT" in run("commands", "show", failed).stdout
    assert "query.state" in run("commands", "list", "--state", "lost", code=4).stderr
    assert "There is no command" in run("commands", "show", "nobodys", code=3).stderr


def test_members_of_a_batch_are_listed(data, run, stack):
    stack.enroll("cmd-b")
    batch = data("send", "ping", "--alias-prefix", "cmd-", "--yes")["request_id"]
    members = data("commands", "list", "--batch", batch)
    assert len(members) == 2
    assert data("commands", "show", members[0]["request_id"])["batch_id"] == batch
    assert data("commands", "show", batch)["device_count"] == 2
    assert "2" in run("commands", "show", batch, "--follow").stdout


def test_cancel(data, run, stack, phone):
    request_id = waiting(data, stack, phone)
    assert data("commands", "cancel", request_id)["state"] == "cancelled"
    sent = data("send", "ping", "--to", "cmd-a")["request_id"]
    assert "only a command that may still be sent" in run("commands", "cancel", sent, code=4).stderr


def test_show_follows_a_command_that_is_retried(data, stack, phone):
    request_id = waiting(data, stack, phone)
    assert data("commands", "show", request_id, "--follow")["result"] == "success"


def test_resend_is_audited_and_done_once(data, run, stack, phone):
    stack.fake_fcm.behave(phone.address, "400")
    request_id = data("send", "wake", "--to", "cmd-a", "--no-wait")["request_id"]
    stack.fake_fcm.behave(phone.address, "200")
    phone.answer = None
    for _ in range(2):
        row = data(
            *("commands", "resend", request_id, "--reason", "it was mended", "--resend-id", "once", "--until-sent")
        )
    resent = [entry for entry in row["audit"] if entry.get("reason") == "it was mended"]
    assert len(resent) == 1
    assert len(stack.fake_fcm.posts(request_id)) == 2
    assert "--reason" in run("commands", "resend", request_id, code=2).stderr
    phone.answer = "success"
    done = data("send", "ping", "--to", "cmd-a")["request_id"]
    assert "has answered" in run("commands", "resend", done, "--reason", "again", code=4).stderr


def test_results_of_a_batch_are_exported_as_csv(data, run, stack):
    stack.enroll("csv-2")
    stack.enroll("csv-1")
    batch = data("send", "ping", "--alias-prefix", "csv-", "--yes")["request_id"]
    rows = list(csv.DictReader(io.StringIO(run("commands", "export", batch, "--csv").stdout)))
    assert [row["alias"] for row in rows] == ["csv-1", "csv-2"]
    assert {row["request_id"] for row in rows} == {f"{batch}:{row['device_id']}" for row in rows}
    assert {row["action"] for row in rows} == {"ping"}
    assert [row["request_id"] for row in data("commands", "export", batch)] == [row["request_id"] for row in rows]
    run("commands", "export", "no-such-batch", "--csv", code=3)
    run("commands", "export", batch, code=2)


def test_export_names_every_device_of_a_large_fleet(data, stack):
    stack.enroll("zzz-last")
    many = "FROM generate_series(1, 501) AS n"
    run_sql(stack.database, f"INSERT INTO devices (id, alias) SELECT 'many-' || n, '!' || n {many}")
    batch = data("send", "ping", "--alias-prefix", "zzz-", "--yes", "--no-wait")["request_id"]
    assert [row["alias"] for row in data("commands", "export", batch)] == ["zzz-last"]
    run_sql(stack.database, "DELETE FROM devices WHERE id LIKE 'many-%'")


def test_duration_that_no_calendar_has_is_refused(run):
    for since in ("9999999999d", "9" * 5000 + "s"):
        assert "--since" in run("commands", "audit", "--since", since, code=2).stderr


def test_audit_names_the_first_command_that_breaks_a_rule(data, run, stack, phone):
    sent = data("send", "ping", "--to", "cmd-a")["request_id"]
    found = data("commands", "audit", "--since", "1h")
    assert (found["checked"] > 0, found["violations"], found["first"]) == (True, 0, None)
    run_sql(stack.database, f"UPDATE fcm_dispatches SET attempts = 3, fence = 3 WHERE request_id = '{sent}'")
    assert f"{sent} (sent) breaks the rule sent_at_most_once" in run("commands", "audit", code=1).stderr
    run_sql(stack.database, f"UPDATE fcm_dispatches SET attempts = 1 WHERE request_id = '{sent}'")
    assert "violations" in run("commands", "audit").stdout
