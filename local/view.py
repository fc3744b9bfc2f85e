"""The display of a run: a live table on a terminal, otherwise a plain line every few seconds."""

import time
from collections import deque
from datetime import UTC, datetime

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from local.figures import Figures

LINE_SECONDS = 5


class View:
    """A context manager. `tell` prints events, `show` updates the figures."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console()
        self.console_address = ""
        self._events: deque[str] = deque(maxlen=5)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._next_line = 0.0
        self._started = time.monotonic()

    def __enter__(self) -> "View":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def tell(self, text: str) -> None:
        self._events.append(f"{datetime.now(UTC):%H:%M:%S} {text}")
        if not self._console.is_terminal:
            self.print(self._events[-1])

    def show(self, figures: Figures) -> None:
        if self._console.is_terminal:
            self._live.update(
                Group(self._numbers(figures), _latest(figures), Text("\n".join(self._events))), refresh=True
            )
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self.print(line(figures))

    def print(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)

    def _numbers(self, now: Figures) -> Table:
        clock = f"{self._title} · {_clock(time.monotonic() - self._started)}"
        table = Table(title=clock, box=box.SIMPLE, show_header=False)
        ledger, stored = now.fleet.ledger, now.stored
        rows = f"[{'green' if now.consistent else 'yellow'}]{stored.rows}[/]"
        enrolled = f"{len(now.fleet.device_ids)} enrolled of {len(now.fleet.devices)}"
        table.add_row("devices", f"{enrolled}, [green]{stored.online}[/] online")
        table.add_row("heartbeats", f"{ledger.accepted} accepted, {ledger.deduplicated} deduplicated")
        table.add_row("refused", f"{ledger.rejected} rejected, {_alarming(now.server_errors)} got 5xx")
        table.add_row("network", f"{ledger.unreachable} unreachable, {ledger.retries} retries, {now.waiting} waiting")
        table.add_row("rows", f"{rows} in the database, {now.expected} distinct buckets sent")
        table.add_row("latency", _latency(now))
        table.add_row("commands", _commands(now))
        table.add_row("builds", f"{ledger.installed} installed, {ledger.installations_failed} installations failed")
        table.add_row("console", Text(self.console_address, overflow="fold"))
        return table


def line(now: Figures) -> str:
    ledger = now.fleet.ledger
    return (
        f"online {now.stored.online}/{len(now.fleet.devices)} · accepted {ledger.accepted},"
        f" deduplicated {ledger.deduplicated}, rejected {ledger.rejected}, 5xx {now.server_errors},"
        f" unreachable {ledger.unreachable} · rows {now.stored.rows}, distinct buckets {now.expected} ·"
        f" {_latency(now)} · installed {ledger.installed} · commands: {_commands(now)}"
    )


def _commands(now: Figures) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(now.stored.commands.items()))
    return f"{states or 'none yet'}; {now.stored.completed} done, {len(now.fleet.ledger.ran)} ran"


def _latest(now: Figures) -> Table:
    table = Table("latest", "battery", "network", "unity", "seen", box=box.SIMPLE)
    for row in now.stored.latest:
        battery = "–" if row.battery_pct is None else f"{row.battery_pct} %{' ⚡' if row.plugged else ''}"
        unity = "–" if row.unity_running is None else "runs" if row.unity_running else "[red]down[/]"
        table.add_row(row.alias, battery, row.network_type or "–", unity, f"{row.last_seen_at:%H:%M:%S}")
    return table


def _latency(now: Figures) -> str:
    p50, p95 = now.fleet.ledger.percentile(0.5), now.fleet.ledger.percentile(0.95)
    if p50 is None or p95 is None:
        return "p50 –, p95 –"
    return f"p50 {p50 * 1000:.1f} ms, p95 {p95 * 1000:.1f} ms"


def _alarming(count: int) -> str:
    return f"[red]{count}[/]" if count else "0"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
