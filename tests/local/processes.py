"""Wait for processes and for their output."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil


def eventually(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def ended(processes: list[psutil.Process], seconds=15) -> bool:
    psutil.wait_procs(processes, timeout=seconds)
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@contextlib.contextmanager
def listening(*arguments: str, **options) -> Iterator[tuple[subprocess.Popen, str]]:
    """A process that prints `listening on URL`, and that URL. It is killed at the end if it still runs."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, **options)
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), line
        yield process, line.removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
