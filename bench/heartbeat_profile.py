"""Where the CPU time of a heartbeat in the function goes: `python -m bench.heartbeat_profile`.

Interrupts the benchmark of the CPU time at every tick of the kernel's clock in which its process runs, and counts which
part of the handler was running. Takes about a minute.
"""

import signal
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType

import msgspec
import nexmdm
from rich.console import Console
from rich.table import Table

from bench import processor_time
from bench.stage import QUICK, Stage
from local.postgres import embedded

SECONDS = 0.001  # the kernel's tick, if that is longer
CALLS = 50_000
LAYER = Path(nexmdm.__path__[0])
# The first of these functions above the interrupted line, by module and name.
PARTS = {
    ("runtime/database.py", "execute"): "connection: the call of psycopg2, the rows of the result",
    ("runtime/logs.py", "heartbeat"): "log record",
    ("heartbeats/record.py", "for_token"): "verb: token's hash, parameters, the result",
    ("heartbeats/body.py", "report"): "verb: values of the body",
    ("runtime/http.py", "handle"): "request: headers, body, response",
}


def main() -> None:
    found: Counter[str] = Counter()

    def interrupted(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(LAYER):
                part = PARTS.get((str(path.relative_to(LAYER)), frame.f_code.co_name))
                if part:
                    found[part] += 1
                    return
            frame = frame.f_back

    with (
        tempfile.TemporaryDirectory(prefix="nexmdm-profile-") as folder,
        embedded.start(Path(folder) / "data") as url,
    ):
        stage = Stage(url, msgspec.structs.replace(QUICK, processor_calls=CALLS))
        stage.build()
        signal.signal(signal.SIGPROF, interrupted)
        signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS)
        figures = processor_time.measure(stage)
        signal.setitimer(signal.ITIMER_PROF, 0)
    table = Table("part", "share")
    for part, count in found.most_common():
        table.add_row(part, f"{100 * count / found.total():.0f} %")
    Console().print(table)
    Console().print(f"{found.total():,} samples; the handler took {figures[0].measured} µs while it was sampled")


if __name__ == "__main__":
    main()
