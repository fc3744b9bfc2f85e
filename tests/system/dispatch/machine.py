"""The state machine of a dispatch (nexmdm.commands.states), written down independently, and a record of every change.

`record(db)` adds a trigger to the dispatches. `check(db)` then compares every single change with the table of allowed
ones, no matter what made the change and what followed it.
"""

from collections import Counter

from nexmdm.runtime.database import Database

from local.fcm import FakeFcm

TERMINAL = {"sent", "failed", "expired", "cancelled"}

# The meaning of FCM's responses, by the fake's names for them.
STATE_AFTER = {
    "200": "sent",
    **dict.fromkeys(("400", "403", "404", "404-no-details"), "failed"),
    **dict.fromkeys(("401", "429"), "retry_wait"),
    **dict.fromkeys(("500", "502", "503", "redirect", "half", "nothing", "reset", "silence"), "unknown"),
}
ACCEPTED_OR_UNKNOWN = {kind for kind, state in STATE_AFTER.items() if state in ("sent", "unknown")} | {"arrived"}

_BY_SENDERS = {
    (None, "accepted"),
    (None, "sending"),  # record_fcm_dispatch
    ("accepted", "sending"),
    ("retry_wait", "sending"),
    ("sending", "sent"),
    ("sending", "failed"),
    ("sending", "retry_wait"),
    ("sending", "unknown"),
    ("unknown", "sent"),
    ("unknown", "failed"),
    ("unknown", "retry_wait"),
    ("accepted", "expired"),
    ("retry_wait", "expired"),
}
_BY_DEVICES = {(state, "sent") for state in ("accepted", "sending", "retry_wait", "unknown", "expired", "sent")}
_BY_OPERATORS = {(state, "sending") for state in ("unknown", "failed", "expired", "sent")} | {
    (state, "cancelled") for state in ("accepted", "retry_wait", "unknown")
}
# Writes without a change of state: a second settling that lost, or a result in a row that stays failed or cancelled.
_IN_PLACE = {(state, state) for state in ("unknown", "sent", "failed", "cancelled")}
TRANSITIONS = _BY_SENDERS | _BY_DEVICES | _BY_OPERATORS | _IN_PLACE

FIXED = ("request_id", "device_id", "action", "params", "created_at", "created_by", "expires_at")


def record(db: Database) -> None:
    for statement in _RECORDER:
        db.execute(statement)


def check(db: Database) -> set[tuple[str | None, str]]:
    """Check that every change since `record` or the last check was allowed; return them."""
    seen = set()
    for row in db.execute("SELECT * FROM transitions ORDER BY n"):
        change = (row["was"], row["is"])
        assert change in TRANSITIONS, row
        seen.add(change)
        taken = row["is"] == "sending"
        assert row["fence_step"] == (1 if taken else 0), f"the fence must change with a claim and only then: {row}"
        assert not row["completed_twice"], f"completed_at and result must be set only once: {row}"
        assert not (taken and row["completed"]), f"an answered command must not be sent again: {row}"
        assert row["secret"] is not True or row["is"] in ("accepted", "sending", "retry_wait", "unknown"), row
        resent = change in _BY_OPERATORS and taken
        assert row["audited"] == (1 if resent or row["is"] == "cancelled" != row["was"] else 0), row
    db.execute("DELETE FROM transitions")
    return seen


def posts_that_count(fake_fcm: FakeFcm, request_id: str) -> int:
    """The POSTs at the fake's socket that FCM accepted or may have accepted."""
    kinds = Counter(post.outcome for post in fake_fcm.posts(request_id))
    return sum(count for kind, count in kinds.items() if kind in ACCEPTED_OR_UNKNOWN)


_RECORDER = (
    """CREATE TABLE transitions (n bigserial, request_id text, was text, "is" text, fence_step int,
        completed bool, completed_twice bool, secret bool, audited int)""",
    """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO transitions (request_id, was, "is", fence_step, completed, completed_twice, secret, audited)
        VALUES (NEW.request_id, OLD.state, NEW.state, NEW.fence - coalesce(OLD.fence, 0), NEW.completed_at IS NOT NULL,
            OLD.completed_at IS NOT NULL AND (OLD.completed_at, OLD.result, OLD.result_message)
                IS DISTINCT FROM (NEW.completed_at, NEW.result, NEW.result_message),
            NEW.secrets <> '{}'::jsonb,
            jsonb_array_length(NEW.audit) - coalesce(jsonb_array_length(OLD.audit), 0));
        RETURN NEW;
    END $$""",
    """CREATE TRIGGER noted AFTER INSERT OR UPDATE OF state, completed_at, result ON fcm_dispatches
        FOR EACH ROW EXECUTE FUNCTION note()""",
)
