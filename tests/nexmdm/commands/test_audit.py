"""The audit of commands: every possible history passes, and each impossible one is named."""

from typing import Any

import pytest
from nexmdm.commands.audit import Audit, AuditQuery, audit
from nexmdm.runtime.database import Database

from tests.support.api import Device, call

CLAIMED = "fence = 1, attempts = 1"
NEVER = "now() - interval '1 hour'"
ENTRY = '{"event": "%s", "by": null, "at": "2100-01-01T00:00:00Z"}'
BROKEN = {
    "sent_at_most_once": "state = 'sent', fence = 2, attempts = 2",
    "answered_is_not_sent_again": f"state = 'sent', {CLAIMED}, completed_at = now(), result = 'OK', audit = '[%s]'"
    % (ENTRY % "resend"),
    "repeated_only_when_chosen": f"state = 'sent', fence = 2, attempts = 2, audit = '[{ENTRY % 'repeat'}]'",
    "every_claim_has_a_fence": "state = 'sent', fence = 0, attempts = 1",
    "accepted_was_not_sent": CLAIMED,
    "sending_has_a_lease": "state = 'sending', fence = 1, lease_until = now()",
    "retry_was_refused": f"state = 'retry_wait', {CLAIMED}, next_at = now()",
    "failed_was_refused": f"state = 'failed', {CLAIMED}",
    "sent_was_sent_or_answered": "state = 'sent'",
    "unknown_was_sent_or_restored": "state = 'unknown'",
    "cancelled_by_someone": "state = 'cancelled'",
    "settled_after_accepted": f"state = 'sent', {CLAIMED}, sent_at = {NEVER}",
    "result_has_an_answer": f"state = 'sent', {CLAIMED}, result = 'OK'",
    "lease_is_ended": f"state = 'sending', {CLAIMED}, lease_until = {NEVER}",
    "life_is_ended": f"expires_at = {NEVER}",
}


@pytest.fixture
def command(db: Database, device: Device) -> Database:
    """A database with one accepted command."""
    put(db, device.id, "r-1")
    return db


def put(db: Database, device_id: str, request_id: str, **columns: Any) -> None:
    db.execute(
        "INSERT INTO fcm_dispatches (request_id, device_id, action, created_by, refused, expires_at)"
        " VALUES (%(request_id)s, %(device_id)s, 'ping', 'operator', 0, now() + interval '1 hour')",
        {"request_id": request_id, "device_id": device_id},
    )


@pytest.mark.parametrize("rule", BROKEN)
def test_audit_names_the_broken_rule(command: Database, rule: str):
    assert audit(command, AuditQuery()).violations == 0
    command.execute(f"UPDATE fcm_dispatches SET {BROKEN[rule]}")
    found = audit(command, AuditQuery())
    assert (found.violations, found.first and (found.first.request_id, found.first.rule)) == (1, ("r-1", rule))


def test_audit_allows_one_attempt_per_resend_repeat_and_refusal(command: Database):
    resent = ENTRY.replace("2100", "2020") % "resend"
    command.execute(
        f"UPDATE fcm_dispatches SET state = 'sent', fence = 3, attempts = 3, refused = 1, audit = '[{resent}]'"
    )
    assert audit(command, AuditQuery()).violations == 0
    command.execute("UPDATE fcm_dispatches SET refused = 0")
    assert audit(command, AuditQuery()).violations == 1


def test_audit_exempts_and_counts_rows_of_an_adopted_database(command: Database):
    command.execute("UPDATE fcm_dispatches SET state = 'unknown', created_by = NULL")
    assert audit(command, AuditQuery()) == Audit(checked=1, exempt=1, violations=0, first=None)


def test_since_leaves_out_older_rows_and_lists_the_oldest_first(command: Database, device: Device):
    put(command, device.id, "r-0")
    command.execute("UPDATE fcm_dispatches SET state = 'sent'")
    old = "created_at = now() - interval '2 days', sent_at = now() - interval '2 days'"
    command.execute(f"UPDATE fcm_dispatches SET {old} WHERE request_id = 'r-1'")
    whole = call("GET", "/v1/audit/commands").json
    assert (whole["checked"], whole["violations"], whole["first"]["request_id"]) == (2, 2, "r-1")
    since = command.execute("SELECT to_char(now() - interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS at")[0]["at"]
    recent = call("GET", "/v1/audit/commands", query={"since": since}).json
    assert (recent["checked"], recent["first"]["request_id"]) == (1, "r-0")
    assert call("GET", "/v1/audit/commands", query={"since": "yesterday"}).status == 422
