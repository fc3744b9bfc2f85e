"""Phones that behave unusually: odd values, wrong clocks, factory resets, shared tokens.

The values come from public bug reports about such fleets. None of them may cause a report to be rejected, or a
reporting phone to look offline.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg2

from local.fleet.ledger import Ledger
from local.fleet.storage import Body

Change = Callable[[Body], None]
DAY = 86_400


def _set(*path: str, value: Any) -> Change:
    def change(body: Body) -> None:
        *outer, last = path
        inner: Any = body
        for name in outer:
            inner = inner.setdefault(name, {})
        if isinstance(inner, dict):
            inner[last] = value

    return change


# Odd values in a heartbeat.
VALUES: dict[str, Change] = {
    "battery 101": _set("battery", "pct", value=101),
    "battery 85.7": _set("battery", "pct", value=85.7),
    "battery -1": _set("battery", "pct", value=-1),
    "battery as text": _set("battery", "pct", value="85 %"),
    "temperature NaN": _set("battery", "temperature_c", value=float("nan")),
    "temperature NaN as text": _set("battery", "temperature_c", value="NaN"),
    "temperature -273.15": _set("battery", "temperature_c", value=-273.15),
    "temperature in tenths": _set("battery", "temperature_c", value=312),
    "signal 2147483647": _set("signal_dbm", value=2_147_483_647),
    "uptime 86461.9": _set("system", "uptime_seconds", value=86_461.9),
    "uptime -2": _set("system", "uptime_seconds", value=-2),
    "uptime beyond 64 bits": _set("system", "uptime_seconds", value=2**70),
    "negative memory": _set("memory", "avail_ram_mb", value=99_999_999),
    "pressure 1e400": _set("memory", "pressure_pct", value=float("inf")),
    "apps as a list": _set("app_versions", value=["io.unitynodes.unityapp"]),
    "a long version": _set("app_versions", "com.example.other", value={"installed": True, "version_name": "9" * 201}),
    "a version as a number": _set(
        "app_versions", "io.unitynodes.unityapp", value={"installed": True, "version_name": 7}
    ),
    "status warning": _set("status", value="warning"),
    "an SSID with NUL": _set("network", "ssid", value="site\0"),
    "an SSID with half an emoji": _set("network", "ssid", value="caf\ud83d"),
    "an unknown transport": _set("network", "transport", value="ethernet over USB"),
    "an address that is none": _set("network", "ip", value="0:0:0:0%wlan0"),
    "an empty carrier": _set("network", "carrier", value=""),
    "Arabic-Indic digits in the time": _set("timestamp_utc", value="٢٠٢٦-١١-٢٨T١٢:٠٠:٠٠Z"),
    "second 60": _set("timestamp_utc", value="2026-06-30T23:59:60Z"),
    "time in milliseconds": _set("timestamp_utc", value=1_780_000_000_000),
    "an empty time": _set("timestamp_utc", value=""),
    "time as an object": _set("timestamp_utc", value={"seconds": 1}),
    "a flag as text": _set("is_device_owner", value="yes"),
    "a flag as a number": _set("power_ok", value=1),
    "a deep part": _set("self_heal_hints", value=[[[[[[[["deep"]]]]]]]]),
    "an agent version of 300 characters": _set("app_version", value="1." * 150),
    "an FCM token that is none": _set("fcm_token", value="\0"),
    "queue depth -1": _set("queue_depth", value=-1),
    "battery as a list": _set("battery", value=[85, True]),
    "no system": _set("system", value=None),
    "the alias of another phone": _set("alias", value="sim-0001"),
    "an id that is none": _set("device_id", value=17),
}

# Odd values in other reports: a member that identifies the kind of report, and the value.
REPORT_VALUES: dict[str, tuple[str, Change]] = {
    "a message of 1,001 characters": ("message", _set("message", value="x" * 1001)),
    "a message with NUL": ("message", _set("message", value="no\0")),
    "finished in milliseconds": ("finished_at", _set("finished_at", value=1_780_000_000_000)),
    "progress 57.5": ("download_progress", _set("download_progress", value=57.5)),
    "progress 101": ("download_progress", _set("download_progress", value=101)),
    "an error that is an object": ("installation_id", _set("error_message", value={"code": 1})),
    "output with NUL": ("output", _set("output", value="a\0b")),
    "output cut in an emoji": ("output", _set("output", value="done \ud83d")),
    "exit code as text": ("exit_code", _set("exit_code", value="0")),
    "battery 101 in an ack": ("correlation_id", _set("battery", value=101)),
}

# Seconds by which a clock is wrong: after an empty battery, in another century, a day or an hour ahead.
CLOCKS = (-47 * 3600.0, -9_999 * float(DAY), 1.0 * DAY, 3600.0, -300.0)


class Odd:
    """The unusual behaviour of one phone.

    Args:
        share: the share of reports with one odd value.
    """

    def __init__(self, rng: random.Random, share: float) -> None:
        self._rng, self._share = rng, share
        self.used: list[str] = []
        self.wiped = 0

    def change(self, body: Body, heartbeat: bool) -> None:
        """Put one odd value into some of the reports."""
        if self._rng.random() >= self._share:
            return
        fitting = {name: change for name, (member, change) in REPORT_VALUES.items() if member in body}
        values = VALUES if heartbeat else fitting
        if values:
            name = self._rng.choice(sorted(values))
            values[name](body)
            self.used.append(name)

    def clock(self) -> float:
        """An offset for the phone's clock in the next report, usually 0."""
        return self._rng.choice(CLOCKS) if self._rng.random() < self._share else 0.0

    def is_wiped(self) -> bool:
        """Whether the phone is now reset to factory settings."""
        wiped = self._rng.random() < self._share / 5
        self.wiped += wiped
        return wiped

    def shares_a_token(self) -> bool:
        """Whether the next heartbeat has the FCM token of another phone, as after a restored backup."""
        return self._rng.random() < self._share / 2


@dataclass(frozen=True)
class OddReport:
    """The result of a run with an odd fleet.

    Args:
        used: how often each odd value was sent.
        refused: requests that got 4xx, by (route, status).
        unseen: devices that never reported, or whose `last_seen_at` is before `Ledger.last_visible`.
        offline: devices that are offline according to the server.
    """

    used: Counter[str]
    wiped: int
    refused: dict[tuple[str, int], int]
    unseen: list[str]
    offline: list[str]

    def failures(self) -> Iterator[str]:
        if not self.used:
            yield "no odd value was sent, so nothing was proved"
        for (route, status), count in sorted(self.refused.items()):
            yield f"{count} requests to {route} got {status}"
        if self.unseen:
            yield f"the server did not see what these reported last: {', '.join(self.unseen)}"
        if self.offline:
            yield f"these are offline according to the server: {', '.join(self.offline)}"

    def lines(self) -> Iterator[str]:
        kinds, values = len(self.used), self.used.total()
        yield f"odd values     {values} of {kinds} kinds; {self.wiped} phones reset to factory settings"
        failures = list(self.failures())
        yield from (f"FAILED: {failure}" for failure in failures)
        if not failures:
            yield "good: 0 rejected reports, every device online"


def judge(
    ledger: Ledger, odd: Iterable[Odd], device_ids: list[str], online: dict[str, bool], database_url: str
) -> OddReport:
    """Args: online: by device id, as GET /v1/devices answers it. Raises psycopg2.Error: the database cannot be read."""
    with closing(psycopg2.connect(database_url, connect_timeout=3)) as connection, connection.cursor() as cursor:
        cursor.execute(_LAST_SEEN, {"ids": device_ids})
        seen = dict(cursor.fetchall())
    used = list(odd)
    return OddReport(
        used=Counter(name for one in used for name in one.used),
        wiped=sum(one.wiped for one in used),
        refused=dict(ledger.refusals),
        unseen=[d for d in device_ids if d not in seen or seen[d] < (ledger.last_visible(d) or 0.0)],
        offline=[device_id for device_id in device_ids if not online.get(device_id)],
    )


_LAST_SEEN = """
SELECT device_id, extract(epoch FROM last_seen_at)::float8 FROM device_last_status WHERE device_id = ANY(%(ids)s)
"""
