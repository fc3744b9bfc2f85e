"""What is to be told of alerts: claimed by one run under a lease, handed to the topic, settled. At least once.

The rows are the outbox: `notice` is committed with the change that it tells of. A run that dies between claim and
settling leaves its claim; when the lease has passed the notice is claimed again and says that it may be a repeat,
because the topic has no idempotency key and may have it already. Nothing is lost silently; a kill at the wrong moment
tells twice.
"""

import time
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, Row, elapsed_ms

LEASE_SECONDS = 180  # more than the watch function's timeout
NAMED = 5


class Notice(msgspec.Struct):
    """One message about everything that was waiting. `subject` is plain ASCII of less than 100 characters, as SNS wants
    it; `conditions` are those that it speaks of."""

    claim_id: str
    subject: str
    text: str
    conditions: list[str]


def claim(db: Executor, stack: str) -> Notice | None:
    """Take what is to be told and nobody else is telling; None when there is nothing.

    Args:
        stack: whose alerts these are, for the subject.
    """
    start, claim_id = time.perf_counter(), uuid.uuid4().hex
    values = {"claim_id": claim_id, "lease_seconds": LEASE_SECONDS, "named": NAMED}
    groups = db.execute(_CLAIM, values)
    if not groups:
        return None
    count = sum(group["devices"] for group in groups)
    logs.db_operation("update", "device_alerts", {"claim": claim_id, "claimed": count}, elapsed_ms(start))
    return _notice(claim_id, stack, groups)


def settle(db: Executor, claim_id: str) -> int:
    """It was told; returns of how many alerts. Those that changed meanwhile are told again, of the change."""
    start = time.perf_counter()
    told = db.execute(_SETTLE, {"claim_id": claim_id}, repeatable=True)[0]["told"]
    logs.db_operation("update", "device_alerts", {"claim": claim_id, "told": told}, elapsed_ms(start))
    return told


def release(db: Executor, claim_id: str) -> None:
    """It was certainly not told: the next run may, without waiting for the lease."""
    db.execute(_RELEASE, {"claim_id": claim_id}, repeatable=True)


def waiting(db: Executor) -> bool:
    """Whether something is still to be told, be it that another run is about to."""
    return db.execute(_WAITING, repeatable=True)[0]["waiting"]


def _notice(claim_id: str, stack: str, groups: list[Row]) -> Notice:
    counts = {"opened": 0, "recovered": 0}
    for group in groups:
        counts[group["notice"]] += group["devices"]
    words = {"opened": "{} new", "recovered": "{} recovered"}
    what = ", ".join(words[notice].format(n) for notice, n in counts.items() if n)
    lines = [_line(group) for group in groups]
    if any(group["repeated"] for group in groups):
        lines.append("This may repeat an earlier notice, whose delivery was not confirmed.")
    conditions = sorted({group["condition"] for group in groups})
    return Notice(claim_id, f"{stack[:50]} alerts: {what}", "\n".join(lines), conditions)


_TITLES = {
    "silent": "Silent",
    "low_battery": "Low battery",
    "unity_down": "Unity down",
    "queue_growing": "Reports pile up",
    "agent_outdated": "Agent behind the rollout",
}


def _line(group: Row) -> str:
    """`Low battery: 7 devices: lobby (9 %), entrance (12 %) and 5 more`."""
    title = _TITLES[group["condition"]]
    title = title if group["notice"] == "opened" else f"Recovered ({title[0].lower()}{title[1:]})"
    # On one line, whatever an alias holds: it must not look like another condition's.
    told = [f"{' '.join(first['alias'].split())}{_why(group, first['detail'])}" for first in group["first"]]
    more = group["devices"] - len(told)
    names = ", ".join(told) + (f" and {more} more" if more else "")
    return f"{title}: {names}" if group["devices"] == 1 else f"{title}: {group['devices']} devices: {names}"


def _why(group: Row, detail: dict[str, Any]) -> str:
    if group["notice"] == "recovered":
        return ""
    match group["condition"]:
        case "silent":
            at = detail.get("last_seen_at")
            if at is None:
                return " (never heard)"
            return f" (last heard {datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC)"
        case "low_battery":
            return f" ({detail.get('battery_pct')} %)"
        case "queue_growing":
            return f" ({detail.get('queue_depth')} waiting)"
        case "agent_outdated":
            return f" ({detail.get('agent_version')}, offered {detail.get('offered')})"
    return ""


# Whatever waits goes into one message: it counts, and names the first few of each kind.
_CLAIM = """
WITH pending AS MATERIALIZED (
    SELECT a.id, a.condition, a.notice, a.since, a.detail, a.claim_id IS NOT NULL AS repeated, d.alias
    FROM device_alerts a JOIN devices d ON d.id = a.device_id
    WHERE a.notice IS NOT NULL AND (a.lease_until IS NULL OR a.lease_until < clock_timestamp())
    FOR UPDATE OF a SKIP LOCKED
), claimed AS (
    UPDATE device_alerts a SET claim_id = %(claim_id)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
    FROM pending p WHERE a.id = p.id
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY condition, notice ORDER BY since, alias) AS n FROM pending
)
SELECT condition, notice, count(*) AS devices, bool_or(repeated) AS repeated,
    jsonb_agg(jsonb_build_object('alias', alias, 'detail', detail) ORDER BY n) FILTER (WHERE n <= %(named)s) AS first
FROM numbered GROUP BY condition, notice ORDER BY notice, count(*) DESC, condition
"""

_WAITING = "SELECT EXISTS (SELECT FROM device_alerts WHERE notice IS NOT NULL) AS waiting"

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
