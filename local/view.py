"""What a run shows: a live table on a terminal, a plain line every few seconds anywhere else."""

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
    """A context manager. `tell` is for what happens, `show` for the numbers as they stand."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console()
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
            self._console.print(self._events[-1], highlight=False, soft_wrap=True)

    def show(self, figures: Figures) -> None:
        if self._console.is_terminal:
            self._live.update(
                Group(self._numbers(figures), _latest(figures), Text("\n".join(self._events))), refresh=True
            )
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self._console.print(line(figures), highlight=False, soft_wrap=True)

    def _numbers(self, now: Figures) -> Table:
        clock = f"{self._title} · {_clock(time.monotonic() - self._started)}"
        table = Table(title=clock, box=box.SIMPLE, show_header=False)
        rows = f"[{'green' if now.consistent else 'yellow'}]{now.rows}[/]"
        table.add_row("devices", f"{now.registered} enrolled of {now.devices}, [green]{now.online}[/] online")
        table.add_row("heartbeats", f"{now.accepted} accepted, {now.deduplicated} deduplicated")
        table.add_row("refused", f"{now.rejected} rejected, {_alarming(now.server_errors)} answered 5xx")
        table.add_row("network", f"{now.unreachable} unreachable, {now.retries} retries, {now.waiting} waiting")
        table.add_row("rows", f"{rows} in the database, {now.expected} distinct buckets sent")
        table.add_row("latency", _latency(now))
        return table


def line(figures: Figures) -> str:
    return (
        f"online {figures.online}/{figures.devices} · accepted {figures.accepted}, deduplicated {figures.deduplicated},"
        f" rejected {figures.rejected}, 5xx {figures.server_errors}, unreachable {figures.unreachable} ·"
        f" rows {figures.rows}, distinct buckets {figures.expected} · {_latency(figures)}"
    )


def _latest(figures: Figures) -> Table:
    table = Table("latest", "battery", "network", "unity", "seen", box=box.SIMPLE)
    for row in figures.latest:
        battery = "–" if row["battery_pct"] is None else f"{row['battery_pct']} %{' ⚡' if row['plugged'] else ''}"
        unity = {True: "runs", False: "[red]down[/]"}.get(row["unity_running"], "–")
        table.add_row(row["alias"], battery, row["network_type"] or "–", unity, f"{row['last_seen_at']:%H:%M:%S}")
    return table


def _latency(figures: Figures) -> str:
    if figures.p50 is None:
        return "p50 –, p95 –"
    return f"p50 {figures.p50 * 1000:.1f} ms, p95 {figures.p95 * 1000:.1f} ms"


def _alarming(count: int) -> str:
    return f"[red]{count}[/]" if count else "0"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
