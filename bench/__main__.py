"""Runs the benchmarks, prints their tables, and writes JSON.

`--strict` exits with 1 if a bar is missed, `--compare` if a ratio is worse than in the file of an earlier run.

    python -m bench [--only SECTION ...] [--quick] [--rows 2000000] [--json FILE] [--strict] [--compare FILE]

BENCH_ROWS is the default of --rows. Each section has its own database on one embedded server, and each figure a floor
that is measured alternately with it; medians are compared. `widths` runs only if it is named: see docs/migrations.md.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from importlib import import_module
from pathlib import Path

import msgspec
from rich.console import Console

from bench import compare
from bench.figures import Figure, absent, print_table
from bench.stage import QUICK, Sizes, Stage
from local.postgres import embedded

SECTIONS = {
    "processor_time": "CPU time of a heartbeat",
    "heartbeats": "Heartbeats",
    "commands": "Commands",
    "recovery": "After an outage of the whole fleet",
    "growth": "Growth",
    "selectors": "Labels and selectors",
    "watching": "Alerts",
    "removal": "Removal of expired heartbeats",
    "sending": "Sending",
    "cold_starts": "Cold starts of the built functions",
    "targets": "Targets of the documents",
}
BY_NAME_ONLY = {
    "operators": "Operators with a large fleet",
    "widths": "Width of a partition",
    "memory": "Memory of the heartbeat function",
}


def main() -> int:
    options = _options()
    reference = None
    if options.compare:
        try:
            reference = compare.read(options.compare)
        except compare.Unreadable as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
    # The verbs log each operation to standard output, so the tables use the original one.
    console = Console(file=os.fdopen(os.dup(1), "w"), width=140 if not sys.stdout.isatty() else None)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    begun, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="nexmdm-bench-") as folder, embedded.start(Path(folder) / "data") as url:
        figures = measure(url, options.only or list(SECTIONS), _sizes(options), console)
    seconds = time.monotonic() - begun
    _write(options.json, figures, seconds, load)
    verdicts = Counter(figure.verdict for section in figures.values() for figure in section)
    missed, counts = verdicts["MISSED"], f"{verdicts['met']} met, {verdicts['MISSED']} missed"
    console.print(f"{counts}; {seconds:.0f} s on {os.cpu_count()} processors, load {load:.1f} before; {options.json}")
    found = [] if reference is None else sorted(map(str, compare.worse(reference, figures)))
    if reference is not None:
        console.print(f"{len(found)} worse than in {options.compare}")
        for line in found:
            console.print(f"  {line}", soft_wrap=True)
    return 1 if found or (missed and options.strict) else 0


def measure(server: str, sections: list[str], sizes: Sizes, console: Console) -> dict[str, list[Figure]]:
    """Run the sections; a failing section is reported and does not stop the others."""
    titles, figures = SECTIONS | BY_NAME_ONLY, {}
    stage = Stage(server, sizes)
    stage.build()
    for name in sections:
        begun = time.monotonic()
        try:
            figures[name] = import_module(f"bench.{name}").measure(stage)
        except Exception as error:
            traceback.print_exc()
            figures[name] = [absent(titles[name], f"{type(error).__name__}: {error}".splitlines()[0])]
        print_table(console, f"{titles[name]} ({time.monotonic() - begun:.0f} s)", figures[name])
    return figures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Run the benchmarks.")
    rows = int(os.environ.get("BENCH_ROWS", str(Sizes().rows)))
    parser.add_argument("--only", nargs="+", choices=[*SECTIONS, *BY_NAME_ONLY], metavar="SECTION", help="some of them")
    parser.add_argument("--rows", type=int, default=rows, help="expired heartbeats (default: BENCH_ROWS or 2000000)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that everything works")
    parser.add_argument("--json", type=Path, default=embedded.STATE / "bench.json", metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="exit with 1 if a ratio is worse than in FILE")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    return parser.parse_args()


def _sizes(options: argparse.Namespace) -> Sizes:
    return QUICK if options.quick else msgspec.structs.replace(Sizes(), rows=options.rows)


def _write(path: Path, figures: dict[str, list[Figure]], seconds: float, load: float) -> None:
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds),
        "processors": os.cpu_count(),
        "load_before": round(load, 2),
        "figures": msgspec.to_builtins(figures),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
