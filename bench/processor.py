"""Limits a process to the CPU share that Lambda gives a function by its memory: 1,769 MB are one CPU, 256 MB are 0.145.

with share_of(256) as processor:
    processor.hold(process.pid)    # from now on the process is limited to its share
    processor.how                  # how it is limited: by a Linux control group, or by signals

A control group needs root. If none can be created, the process is stopped and continued in periods of 20 ms: the share
over time is the same, but the process runs in one piece per period, whereas with a control group it can run at any
time.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WHOLE_MB = 1769
PERIOD_US = 20_000
ROOT = Path("/sys/fs/cgroup")


class Processor:
    def __init__(self, share: float) -> None:
        self.share = share
        self._group = _group(share)
        self.how = "a control group" if self._group else "SIGSTOP and SIGCONT"
        self._end = threading.Event()

    def hold(self, pid: int) -> None:
        if self._group:
            (self._group / "cgroup.procs").write_text(str(pid))
        else:
            threading.Thread(target=self._in_turn, args=[pid], daemon=True).start()

    def close(self) -> None:
        self._end.set()
        if self._group:
            with suppress(OSError):
                self._group.rmdir()

    def _in_turn(self, pid: int) -> None:
        running = PERIOD_US / 1e6 * self.share
        with suppress(ProcessLookupError):
            while not self._end.wait(running):
                os.kill(pid, signal.SIGSTOP)
                self._end.wait(PERIOD_US / 1e6 - running)
                os.kill(pid, signal.SIGCONT)


@contextmanager
def share_of(memory_mb: float) -> Iterator[Processor]:
    processor = Processor(min(memory_mb / WHOLE_MB, 1))
    try:
        yield processor
    finally:
        processor.close()


def _group(share: float) -> Path | None:
    quota = max(round(PERIOD_US * share), 1000)
    name = f"nexmdm-bench-{os.getpid()}"
    for folder, files in (
        (ROOT / "cpu" / name, {"cpu.cfs_period_us": f"{PERIOD_US}", "cpu.cfs_quota_us": f"{quota}"}),
        (ROOT / name, {"cpu.max": f"{quota} {PERIOD_US}"}),
    ):
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            for file, text in files.items():
                (folder / file).write_text(text)
        except OSError:
            folder.rmdir()
        else:
            return folder
    return None
