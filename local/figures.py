"""The figures of a run: the counts of the fleet and the operator, and those of the database."""

from dataclasses import dataclass, field
from datetime import datetime

import psycopg2
import psycopg2.extras
from nexmdm.runtime.database import Parameters, Row

from local.fcm.behaviours import AMBIGUOUS
from local.fcm.fake import FakeFcm
from local.fleet.fleet import Fleet
from local.operations import Operations

OPEN = ("accepted", "sending", "retry_wait")


@dataclass(frozen=True)
class LastStatus:
    """A device's last status, as far as it is shown."""

    alias: str
    last_seen_at: datetime
    battery_pct: int | None
    plugged: bool | None
    network_type: str | None
    unity_running: bool | None


@dataclass(frozen=True)
class Stored:
    """The database's counts for a run. commands: {state: count}; completed: number of acknowledged commands."""

    rows: int = 0
    online: int = 0
    latest: list[LastStatus] = field(default_factory=list)
    commands: dict[str, int] = field(default_factory=dict)
    completed: int = 0

    @property
    def open_commands(self) -> int:
        return sum(self.commands.get(state, 0) for state in OPEN)


@dataclass(frozen=True)
class Figures:
    fleet: Fleet
    stored: Stored
    operations: Operations
    expected: int
    uncertain: int

    @property
    def consistent(self) -> bool:
        """Whether the rows match the distinct buckets sent, allowing for those whose response was lost."""
        return self.expected <= self.stored.rows <= self.expected + self.uncertain

    @property
    def server_errors(self) -> int:
        return self.fleet.ledger.server_errors + self.operations.server_errors

    @property
    def waiting(self) -> int:
        return sum(len(device.outbox) for device in self.fleet.devices)


class Database:
    """Reads the database's counts over a separate connection, which is reopened if it breaks."""

    def __init__(self, url: str, interval: float) -> None:
        self._url, self._online_seconds = url, 3 * interval
        self._connection: psycopg2.extensions.connection | None = None

    def read(self, device_ids: list[str], since: int, request_ids: list[str]) -> Stored:
        """Rows of these devices in buckets from `since` on, their last reports, the states of these commands.

        Raises:
            psycopg2.Error: it cannot be reached; the next call tries again.
        """
        parameters = {
            "ids": device_ids,
            "since": since,
            "online_seconds": self._online_seconds,
            "commands": request_ids,
        }
        try:
            [rows] = self._rows(_ROWS, parameters)
            [online] = self._rows(_ONLINE, parameters)
            commands = self._rows(_COMMANDS, parameters) if request_ids else []
            return Stored(
                rows=rows["n"],
                online=online["n"],
                latest=[LastStatus(**row) for row in self._rows(_LATEST, parameters)],
                commands={row["state"]: row["n"] for row in commands},
                completed=sum(row["completed"] for row in commands),
            )
        except psycopg2.Error:
            self.close()
            raise

    def has_rows_since(self, bucket: int) -> bool:
        return bool(self._rows(_ANY_ROW, {"since": bucket}))

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _rows(self, sql: str, parameters: Parameters) -> list[Row]:
        if self._connection is None:
            connection = psycopg2.connect(self._url, connect_timeout=3)
            connection.autocommit = True
            self._connection = connection
        with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(sql, parameters)
            return [dict(row) for row in cursor.fetchall()]


def gather(fleet: Fleet, operations: Operations, stored: Stored) -> Figures:
    ledger = fleet.ledger
    return Figures(fleet, stored, operations, ledger.distinct_buckets, ledger.uncertain_buckets)


def sent_twice(fake_fcm: FakeFcm) -> list[str]:
    """The request_ids with more than one message that was or may have been accepted; there must be none."""
    seen: dict[str, int] = {}
    for record in fake_fcm.requests():
        if record.outcome in ("200", *AMBIGUOUS):
            request_id = record.data.get("request_id", "")
            seen[request_id] = seen.get(request_id, 0) + 1
    return [request_id for request_id, count in seen.items() if count > 1]


_ROWS = """
SELECT count(*) AS n FROM device_heartbeats WHERE device_id = ANY(%(ids)s) AND bucket >= to_timestamp(%(since)s)
"""

_ANY_ROW = "SELECT FROM device_heartbeats WHERE bucket >= to_timestamp(%(since)s) LIMIT 1"

_ONLINE = """
SELECT count(*) AS n FROM device_last_status
WHERE device_id = ANY(%(ids)s) AND last_seen_at > clock_timestamp() - make_interval(secs => %(online_seconds)s)
"""

_LATEST = """
SELECT alias, last_seen_at, battery_pct, plugged, network_type, unity_running
FROM device_last_status JOIN devices ON devices.id = device_id
WHERE device_id = ANY(%(ids)s) ORDER BY last_seen_at DESC LIMIT 8
"""

_COMMANDS = """
SELECT state, count(*) AS n, count(completed_at) AS completed FROM fcm_dispatches
WHERE request_id = ANY(%(commands)s) OR batch_id = ANY(%(commands)s) GROUP BY state
"""
