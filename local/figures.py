"""The numbers of a run: what the fleet counted beside what the database holds."""

from dataclasses import dataclass
from typing import Any

import psycopg2
import psycopg2.extras

from local.fleet.fleet import Fleet

ONLINE = "last_seen_at > clock_timestamp() - make_interval(secs => %(online_seconds)s)"


@dataclass(frozen=True)
class Figures:
    """expected and uncertain: distinct buckets sent that must, and that may, be rows."""

    devices: int
    registered: int
    online: int
    accepted: int
    deduplicated: int
    rejected: int
    server_errors: int
    unreachable: int
    retries: int
    waiting: int
    rows: int
    expected: int
    uncertain: int
    p50: float | None
    p95: float | None
    latest: list[dict[str, Any]]

    @property
    def consistent(self) -> bool:
        return self.expected <= self.rows <= self.expected + self.uncertain


class Database:
    """Reads what a run shows, over a connection of its own that is opened again when it broke."""

    def __init__(self, url: str, interval: float) -> None:
        self._url, self._online_seconds = url, 3 * interval
        self._connection = None

    def read(self, device_ids: list[str], since: int) -> tuple[int, int, list[dict[str, Any]]]:
        """(rows of these devices in buckets from `since` on, devices online, the latest reports).

        Raises:
            psycopg2.Error: it cannot be reached; the next call tries again.
        """
        parameters = {"ids": device_ids, "since": since, "online_seconds": self._online_seconds}
        try:
            [rows] = self._rows(_ROWS, parameters)
            [online] = self._rows(_COUNT_ONLINE, parameters)
            return rows["n"], online["n"], self._rows(_LATEST, parameters)
        except psycopg2.Error:
            self.close()
            raise

    def has_rows_since(self, bucket: int) -> bool:
        return bool(self._rows(_ANY_ROW, {"since": bucket}))

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _rows(self, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        if self._connection is None:
            self._connection = psycopg2.connect(self._url, connect_timeout=3)
            self._connection.autocommit = True
        with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()


def gather(fleet: Fleet, rows: int, online: int, latest: list[dict[str, Any]]) -> Figures:
    ledger = fleet.ledger
    return Figures(
        devices=len(fleet.devices),
        registered=len(fleet.device_ids),
        online=online,
        accepted=ledger.accepted,
        deduplicated=ledger.deduplicated,
        rejected=ledger.rejected,
        server_errors=ledger.server_errors,
        unreachable=ledger.unreachable,
        retries=ledger.retries,
        waiting=sum(len(device.outbox) for device in fleet.devices),
        rows=rows,
        expected=ledger.distinct_buckets,
        uncertain=ledger.uncertain_buckets,
        p50=ledger.percentile(0.5),
        p95=ledger.percentile(0.95),
        latest=latest,
    )


_ROWS = """
SELECT count(*) AS n FROM device_heartbeats WHERE device_id = ANY(%(ids)s) AND bucket >= to_timestamp(%(since)s)
"""

_ANY_ROW = "SELECT FROM device_heartbeats WHERE bucket >= to_timestamp(%(since)s) LIMIT 1"

_COUNT_ONLINE = f"SELECT count(*) AS n FROM device_last_status WHERE device_id = ANY(%(ids)s) AND {ONLINE}"

_LATEST = """
SELECT alias, last_seen_at, battery_pct, plugged, network_type, unity_running
FROM device_last_status JOIN devices ON devices.id = device_id
WHERE device_id = ANY(%(ids)s) ORDER BY last_seen_at DESC LIMIT 8
"""
