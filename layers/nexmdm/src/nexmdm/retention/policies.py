"""Retention policies: heartbeats, dispatches, download events, enrollment tokens, alerts and more past their time.

Each policy is a generator that removes one batch (or one partition) per step, each step one committed statement, and
yields how many rows were removed. A run can stop after any step, be killed at any time, and be continued later. Two
concurrent runs share the work. All times are those of the database's clock.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from nexmdm.heartbeats import history, partitions
from nexmdm.heartbeats.partitions import Partition
from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, elapsed_ms, statement
from nexmdm.runtime.settings import Settings

BATCH = 5_000
FLEET_HISTORY_DAYS = 400  # a year, plus some weeks for comparison with the year before
DEVICE_HISTORY_DAYS = 90
BLOCKS = 64  # of 8 kB

Steps = Iterator[int]


class Outcome(msgspec.Struct):
    """The result of one policy. done: no due rows are left. error: the error that stopped it."""

    deleted: int = 0
    done: bool = False
    seconds: float = 0
    error: str | None = None


class _Due(NamedTuple):
    """The due rows of a table with the alias `t`; `key` is its primary key, and `order` sorts the oldest first."""

    table: str
    key: str
    where: str
    order: str

    @property
    def delete(self) -> str:
        """The statement that deletes a batch of them."""
        same = " AND ".join(f"t.{column} = old.{column}" for column in self.key.split(", "))
        return _DELETE_BATCH.format(**self._asdict(), same=same)


def cutoff(db: Executor, days: int) -> datetime:
    row = db.execute("SELECT clock_timestamp() - make_interval(days => %(days)s) AS at", {"days": days})
    at: datetime = row[0]["at"]
    return at


def heartbeats(
    db: Executor, before: datetime, bucket_seconds: int, archive: Callable[[Partition], int] | None = None
) -> Steps:
    """Drop whole partitions, and delete rows of the partition that contains the cutoff.

    Args:
        archive: writes a partition to the archive and returns its number of rows. With an archive only archived
        partitions are dropped, so rows are removed up to six hours late.
    """
    # A row may be younger than its bucket by almost the bucket's length.
    whole = before - timedelta(seconds=bucket_seconds)
    if archive:
        for _ in partitions.make_for_default(db, whole):
            yield 0
    cut = ["device_heartbeats_default"]
    for partition in partitions.bounds(db):
        if partition.upper <= whole:
            yield _dropped(db, partition, archive)
        elif partition.lower < before:
            cut.append(partition.name)
    for name in () if archive else cut:
        for first in range(0, partitions.blocks(db, name), BLOCKS):
            where = {"before": before, "first": f"({first},0)", "end": f"({first + BLOCKS},0)"}
            yield db.execute(_HEARTBEATS.format(name=name), where)[0]["deleted"]


def _dropped(db: Executor, partition: Partition, archive: Callable[[Partition], int] | None) -> int:
    archived = None
    try:
        if archive:
            archived = archive(partition)
    except Exception as error:
        # Dropped by another cleanup, which had archived it.
        if not partitions.is_gone(error):
            raise
        return 0
    return partitions.drop(db, partition.name, archived)


def dispatches(db: Executor, before: datetime) -> Steps:
    """Dispatches that are settled and that FCM can no longer deliver; then batches without dispatches."""
    yield from _batches(db, _DISPATCHES, before)
    for _ in _batches(db, _BATCHES, before):
        yield 0


def downloads(db: Executor, before: datetime) -> Steps:
    return _batches(db, _DOWNLOADS, before)


def tokens(db: Executor, before: datetime) -> Steps:
    """Enrollment tokens that expired or were used up before then, except those that a download event refers to.

    Then rejected registrations after an hour, regardless of the policy's age, because IP addresses are personal data.
    """
    yield from _batches(db, _TOKENS, before)
    for _ in _batches(db, _REFUSALS, before):
        yield 0


def alerts(db: Executor, before: datetime) -> Steps:
    """Alerts that recovered before then and have no waiting notification."""
    return _batches(db, _ALERTS, before)


def events(db: Executor, before: datetime) -> Steps:
    """Events, then records of schedules' runs."""
    yield from _batches(db, _EVENTS, before)
    for _ in _batches(db, _RUNS, before):
        yield 0


def fleet_history(db: Executor, before: datetime) -> Steps:
    return _batches(db, _FLEET_HISTORY, before)


def device_history(db: Executor, before: datetime) -> Steps:
    return _batches(db, _DEVICE_HISTORY, before)


def due(db: Executor, settings: Settings) -> dict[str, int]:
    """The number of rows that each policy would remove now, for the dry run."""
    batches = {
        "fcm_dispatches": _DISPATCHES,
        "apk_downloads": _DOWNLOADS,
        "enrollment_tokens": _TOKENS,
        "device_alerts": _ALERTS,
        "operator_events": _EVENTS,
        "fleet_history": _FLEET_HISTORY,
        "device_history": _DEVICE_HISTORY,
    }
    rows = {policy: f"{due.table} t WHERE {due.where}" for policy, due in batches.items()}
    rows["heartbeats"] = "device_heartbeats WHERE bucket < %(before)s AND ts < %(before)s"
    found = {}
    for policy, days in retention_days(settings).items():
        before = cutoff(db, days)
        if policy == "heartbeats" and settings.heartbeat_export_bucket:
            rows[policy] = "device_heartbeats WHERE bucket < %(before)s"
            before = partitions.start_of(before - timedelta(seconds=settings.heartbeat_bucket_seconds))
        counted = db.execute(f"SELECT count(*) AS n FROM {rows[policy]}", {"before": before}, repeatable=True)
        found[policy] = counted[0]["n"]
    return found


def retention_days(settings: Settings) -> dict[str, int]:
    return {
        "heartbeats": settings.heartbeat_retention_days,
        "fcm_dispatches": settings.dispatch_retention_days,
        "apk_downloads": settings.download_retention_days,
        "enrollment_tokens": settings.token_retention_days,
        "device_alerts": settings.alert_retention_days,
        "operator_events": settings.event_retention_days,
        "fleet_history": FLEET_HISTORY_DAYS,
        "device_history": DEVICE_HISTORY_DAYS,
    }


def run(
    db: Executor, entity: str, days: int, policy: Callable[[datetime], Steps], may_go_on: Callable[[], bool]
) -> Outcome:
    """Run one policy's steps while there is time, and write one log record. An error ends only this policy."""

    before: datetime | None = None

    def steps() -> Steps:
        nonlocal before
        before = cutoff(db, days)
        yield from policy(before)

    outcome = guarded(steps(), may_go_on)
    keys = {"cutoff": before and before.isoformat(), "deleted": outcome.deleted}
    logs.db_operation("cleanup", entity, keys, outcome.seconds * 1000)
    return outcome


def guarded(steps: Steps, may_go_on: Callable[[], bool]) -> Outcome:
    """Run steps until none is left, the time is over, or one fails."""
    outcome, start = Outcome(), time.perf_counter()
    try:
        while may_go_on():
            removed = next(steps, None)
            if removed is None:
                outcome.done = True
                break
            outcome.deleted += removed
    except Exception as error:
        outcome.error = type(error).__name__ + (f": {error}" if isinstance(error, partitions.Kept) else "")
        logs.failure(error)
    outcome.seconds = round(elapsed_ms(start) / 1000, 3)
    return outcome


def removed(db: Executor, entity: str, days: int, policy: Callable[[datetime], Steps]) -> int:
    """Run all steps and raise errors; return the number of removed rows. Writes one log record."""
    start, before = time.perf_counter(), cutoff(db, days)
    deleted = sum(policy(before))
    logs.db_operation("cleanup", entity, {"cutoff": before.isoformat(), "deleted": deleted}, elapsed_ms(start))
    return deleted


def _batches(db: Executor, due: _Due, before: datetime) -> Steps:
    sql = due.delete
    while True:
        deleted = db.execute(sql, {"before": before, "batch": BATCH})[0]["deleted"]
        if not deleted:
            return
        yield deleted


# Processes some blocks of the table at a time, without sorting or an index, and reads no block twice. The removed rows
# are added to the history in the same statement.
_HEARTBEATS = f"""
WITH gone AS (
    DELETE FROM {{name}} WHERE ctid >= %(first)s AND ctid < %(end)s AND bucket < %(before)s AND ts < %(before)s
    RETURNING *
), kept AS ({history.SUMMARIZE.replace("{rows}", "gone")})
SELECT count(*) AS deleted FROM gone
"""

_DELETE_BATCH = statement(__package__, "delete_batch")

# An unknown dispatch counts as settled once FCM has dropped its message. Its request_id is kept as long as the message
# may still arrive, so that a repeated request never sends it twice.
_DISPATCHES = _Due(
    "fcm_dispatches",
    "request_id",
    """t.sent_at < %(before)s AND t.state IN ('sent', 'failed', 'expired', 'cancelled', 'unknown')
    AND t.expires_at < clock_timestamp() AND coalesce(t.fcm_expires_at, t.expires_at) < clock_timestamp()""",
    "t.sent_at",
)
_BATCHES = _Due(
    "command_batches",
    "request_id",
    """t.created_at < %(before)s
    AND NOT EXISTS (SELECT FROM fcm_dispatches d WHERE d.batch_id = t.request_id)""",
    "t.created_at",
)
_DOWNLOADS = _Due("apk_download_events", "id", "t.ts < %(before)s", "t.ts")
_TOKENS = _Due(
    "enrollment_tokens",
    "token_id",
    """(t.expires_at < %(before)s
     OR (t.status <> 'active' AND coalesce(t.last_used_at, t.used_at, t.issued_at) < %(before)s))
    AND NOT EXISTS (SELECT FROM apk_download_events e WHERE e.token_id = t.token_id)""",
    "t.expires_at",
)
_REFUSALS = _Due("registration_refusals", "source", "t.since < clock_timestamp() - interval '1 hour'", "t.since")
_RUNS = _Due("schedule_runs", "schedule_id, scheduled_for", "t.created_at < %(before)s", "t.created_at")
_FLEET_HISTORY = _Due("fleet_history", "hour, grp", "t.hour < %(before)s", "t.hour")
_DEVICE_HISTORY = _Due("device_history", "device_id, hour", "t.hour < %(before)s", "t.hour")
_EVENTS = _Due("operator_events", "event_id", "t.at < %(before)s", "t.at")
_ALERTS = _Due("device_alerts", "id", "t.recovered_at < %(before)s AND t.notice IS NULL", "t.id")
