"""Notifications of alerts, delivered at least once: claimed by one run with a lease, published, and settled.

The rows are the outbox: `notice` is committed with the change that it describes. A run that dies between claiming and
settling leaves its claim; after the lease has ended, the notification is claimed again and marked as a possible repeat,
because the topic has no idempotency key and may already have it. No notification is lost silently, but a crash at the
wrong moment sends one twice.
"""

import time
import uuid
from typing import Literal

import msgspec
from msgspec import Struct

from nexmdm.alerts import rules
from nexmdm.alerts.conditions import DECLARATIONS, Condition
from nexmdm.alerts.rules import Severity
from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, Row, elapsed_ms, statement

LEASE_SECONDS = 180  # longer than the watch function's timeout
NAMED = 5


class Group(Struct, kw_only=True):
    """The changes of one rule: `devices` alerts opened or recovered.

    Attributes:
        still_open: the number of the rule's open alerts; 0 resolves an incident.
        text: one line for people, with the first few devices.
    """

    condition: Condition
    rule: str
    notice: Literal["opened", "recovered"]
    severity: Severity
    devices: int
    still_open: int
    text: str


class Notification(Struct):
    """One message with all notifications that were waiting for the same routes.

    Attributes:
        subject: plain ASCII of less than 100 characters, as SNS requires.
        routes: names from NOTIFICATION_ROUTES; empty for only the topic.
    """

    claim_id: str
    stack: str
    subject: str
    text: str
    routes: list[str]
    groups: list[Group]

    @property
    def conditions(self) -> list[str]:
        """The conditions that the message mentions."""
        return sorted({group.condition.value for group in self.groups})


def claim(db: Executor, stack: str) -> Notification | None:
    """Claim waiting notifications that no other run is sending; None if there are none.

    Args:
        stack: the stack's name, for the subject.
    """
    start, claim_id = time.perf_counter(), uuid.uuid4().hex
    quiet = sorted(rules.quiet(db))
    values = {"claim_id": claim_id, "lease_seconds": LEASE_SECONDS, "named": NAMED, "quiet": quiet}
    rows = db.execute(_CLAIM, values)
    if not rows:
        return None
    count = sum(row["devices"] for row in rows)
    logs.db_operation("update", "device_alerts", {"claim": claim_id, "claimed": count}, elapsed_ms(start))
    return _notification(claim_id, stack, rows)


def settle(db: Executor, claim_id: str) -> int:
    """Record that it was sent; return the number of alerts. Alerts that changed in the meantime are notified again."""
    start = time.perf_counter()
    told = int(db.execute(_SETTLE, {"claim_id": claim_id}, repeatable=True)[0]["told"])
    logs.db_operation("update", "device_alerts", {"claim": claim_id, "told": told}, elapsed_ms(start))
    return told


def release(db: Executor, claim_id: str) -> None:
    """Record that it was certainly not sent, so that the next run can send it without waiting for the lease."""
    db.execute(_RELEASE, {"claim_id": claim_id}, repeatable=True)


def waiting(db: Executor) -> bool:
    """Whether notifications are still waiting, including those claimed by another run."""
    quiet = sorted(rules.quiet(db))
    return bool(db.execute(_WAITING, {"quiet": quiet}, repeatable=True)[0]["waiting"])


def _notification(claim_id: str, stack: str, rows: list[Row]) -> Notification:
    counts = {"opened": 0, "recovered": 0}
    for row in rows:
        counts[row["notice"]] += row["devices"]
    words = {"opened": "{} new", "recovered": "{} recovered"}
    what = ", ".join(words[notice].format(n) for notice, n in counts.items() if n)
    lines = [_line(row) for row in rows]
    groups = [_group(row, line) for row, line in zip(rows, lines, strict=True)]
    if any(row["repeated"] for row in rows):
        lines.append("This may repeat an earlier notification, whose delivery was not confirmed.")
    subject = f"{stack[:50]} alerts: {what}"
    return Notification(claim_id, stack, subject, "\n".join(lines), rows[0]["routes"], groups)


def _group(row: Row, line: str) -> Group:
    names = ("condition", "rule", "notice", "severity", "devices", "still_open")
    return msgspec.convert({**{name: row[name] for name in names}, "text": line}, Group)


def _line(row: Row) -> str:
    """`Low battery: 7 devices: lobby (9 %), entrance (12 %) and 5 more`."""
    condition = Condition(row["condition"])
    title = DECLARATIONS[condition].title
    title = title if row["notice"] == "opened" else f"Recovered ({title[0].lower()}{title[1:]})"
    if row["rule"] != condition:
        title = f"{title} [{row['rule']}]"
    # On one line, so that an alias with line breaks cannot look like another condition's line.
    told = [
        f"{' '.join(first['alias'].split())}{_phrase(row, condition, first['detail'], first['deleted'])}"
        for first in row["first"]
    ]
    more = row["devices"] - len(told)
    names = ", ".join(told) + (f" and {more} more" if more else "")
    return f"{title}: {names}" if row["devices"] == 1 else f"{title}: {row['devices']} devices: {names}"


def _phrase(row: Row, condition: Condition, detail: dict[str, object], deleted: bool) -> str:
    """The words after a device's name: what was found, or that the alert ended because the device was deleted."""
    if row["notice"] == "recovered":
        return " (deleted)" if deleted else ""
    phrase = DECLARATIONS[condition].phrase(detail)
    return f" ({phrase})" if phrase else ""


_CLAIM = statement(__package__, "claim")

_WAITING = """
SELECT EXISTS (SELECT FROM device_alerts
    WHERE notice IS NOT NULL AND NOT (rule IS NOT NULL AND rule = ANY (%(quiet)s::text[]))) AS waiting
"""

_SETTLE = """
WITH told AS (
    UPDATE device_alerts SET notice = NULL, claim_id = NULL, lease_until = NULL, notified_at = clock_timestamp()
    WHERE claim_id = %(claim_id)s AND notice IS NOT NULL RETURNING 1
)
SELECT count(*) AS told FROM told
"""

_RELEASE = """
UPDATE device_alerts SET claim_id = NULL, lease_until = NULL WHERE claim_id = %(claim_id)s AND notice IS NOT NULL
"""
