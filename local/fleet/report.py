"""The result of a load run: latencies and errors, and the comparison of all rows with all buckets that were sent."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import psycopg2

from local.fleet.ledger import Key, Ledger

SHOWN = 5  # maximum number of wrong keys to print


@dataclass(frozen=True)
class Report:
    """Milliseconds of a heartbeat's response; counts of heartbeats; (device id, bucket) of wrong rows.

    missing: accepted but not in the database. surplus: in the database but never sent, or more than once.
    """

    p50: float
    p95: float
    p99: float
    accepted: int
    deduplicated: int
    rejected: int
    errors: int
    unsent: int
    sent_buckets: int
    uncertain_buckets: int
    rows: int
    missing: list[Key]
    surplus: list[Key]

    def failures(self) -> Iterator[str]:
        """Descriptions of the problems; none if the run was good."""
        if not self.sent_buckets:
            yield "no heartbeat was accepted, so nothing was proved"
        if self.errors:
            yield f"{self.errors} requests got 5xx or no response"
        if self.rejected:
            yield f"{self.rejected} heartbeats were rejected"
        if self.unsent:
            yield f"{self.unsent} reports were never accepted"
        if self.missing:
            yield f"{len(self.missing)} accepted heartbeats have no row: {_some(self.missing)}"
        if self.surplus:
            yield f"{len(self.surplus)} rows are superfluous: {_some(self.surplus)}"

    def lines(self) -> Iterator[str]:
        yield f"heartbeats     {self.accepted} accepted ({self.deduplicated} as duplicates), {self.rejected} rejected"
        yield f"answered in    p50 {self.p50:.0f} ms, p95 {self.p95:.0f} ms, p99 {self.p99:.0f} ms"
        yield f"errors         {self.errors} (5xx or no response), {self.unsent} reports unsent"
        yield f"sent           {self.sent_buckets} distinct buckets, {self.uncertain_buckets} more without a response"
        yield f"database       {self.rows} rows, {len(self.missing)} missing, {len(self.surplus)} superfluous"
        failures = list(self.failures())
        yield from (f"FAILED: {failure}" for failure in failures)
        if not failures:
            yield "good: the rows are the buckets that were sent"


def report(ledger: Ledger, device_ids: list[str], unsent: int, database_url: str) -> Report:
    """Raises psycopg2.Error: the database cannot be read."""
    stored, uncertain = ledger.stored, ledger.uncertain
    rows = _rows(database_url, device_ids, ledger.since)
    wrong = {key for key, count in rows.items() if count > 1} | (rows.keys() - stored - uncertain)
    p50, p95, p99 = (1000 * (ledger.percentile(share) or 0) for share in (0.5, 0.95, 0.99))
    return Report(
        p50=p50,
        p95=p95,
        p99=p99,
        accepted=ledger.accepted,
        deduplicated=ledger.deduplicated,
        rejected=ledger.rejected,
        errors=ledger.server_errors + ledger.unreachable,
        unsent=unsent,
        sent_buckets=len(stored),
        uncertain_buckets=len(uncertain),
        rows=sum(rows.values()),
        missing=sorted(stored - rows.keys()),
        surplus=sorted(wrong),
    )


def _rows(database_url: str, device_ids: list[str], since: int) -> dict[Key, int]:
    with closing(psycopg2.connect(database_url, connect_timeout=3)) as connection, connection.cursor() as cursor:
        cursor.execute(_ROWS, {"ids": device_ids, "since": since})
        return {(device_id, bucket): count for device_id, bucket, count in cursor.fetchall()}


def _some(keys: list[Key]) -> str:
    shown = ", ".join(f"{device_id} at {bucket}" for device_id, bucket in keys[:SHOWN])
    return f"{shown}, ..." if len(keys) > SHOWN else shown


_ROWS = """
SELECT device_id, extract(epoch FROM bucket)::int8, count(*) FROM device_heartbeats
WHERE device_id = ANY(%(ids)s) AND bucket >= to_timestamp(%(since)s) GROUP BY device_id, bucket
"""
