"""Check the dispatch model with SPIN, and compare the code with it on PostgreSQL: `make prove`.

make prove            every run of runs.toml, and thousands of steps on the real database
make prove QUICK=1    the runs that are marked quick, and a sample of the steps
make prove MUTATE=1   then remove each protection in turn, in the model and in the code
make prove WRITE=1    select new steps for `make test`, after a change of the model
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model import spin, steps
from model.spin import Run, Verdict

WORKERS = 2
SEED = 1


def main() -> None:
    options = _options()
    start = time.monotonic()
    try:
        if options.write:
            steps.write(steps.chosen(SEED, walks=10, most=3))
            print(f"wrote {steps.FILE.relative_to(spin.HERE.parent)}")
            return
        good = _searches(options.quick) and _replays(options.quick) and (not options.mutate or _mutants())
    except (spin.SpinMissing, RuntimeError) as error:
        sys.exit(f"prove: {error}")
    print(f"prove: {'all of it holds' if good else 'it does not hold'}, {time.monotonic() - start:.0f} s", flush=True)
    sys.exit(not good)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m model.prove", description="Check the model, and compare the code with it."
    )
    for name in ("quick", "mutate", "write"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def _searches(quick: bool) -> bool:
    """Every state of every run, two runs at a time."""
    chosen = [run for run in spin.runs() if run.quick or not quick]
    print(f"SPIN, every state within the bounds of {len(chosen)} runs:", flush=True)
    with ThreadPoolExecutor(WORKERS) as pool:
        for run, verdict in zip(chosen, pool.map(spin.check, chosen), strict=True):
            print(_told(run, verdict), flush=True)
            if verdict.violated:
                for step in verdict.trail:
                    print("   ", step.line())
                return False
    return True


def _told(run: Run, verdict: Verdict) -> str:
    bounds = " ".join(f"{name.lower()}={value}" for name, value in run.bounds.items())
    what = run.formula or f"{len(spin.properties())} properties"
    found = f"VIOLATED: {verdict.violated}" if verdict.violated else "holds"
    counts = f"{verdict.states:,} states, {verdict.transitions:,} transitions, {verdict.seconds:.0f} s"
    return f"  {run.name}: {what}: {found}\n    {bounds}\n    {counts}"


def _replays(quick: bool) -> bool:
    """Run the steps of the state graph with the real statements on a real database."""
    chosen = steps.stored() if quick else steps.chosen(SEED, walks=40, most=12)
    walked = sum(map(len, chosen.walks))
    kinds = len({step.name for step in chosen.single})
    print(
        f"PostgreSQL, seed {SEED}: {len(chosen.single):,} steps of {kinds} transitions, {len(chosen.refused):,}"
        f" statements where the model has no step, {len(chosen.walks)} walks of {walked:,} steps:",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="nexmdm-steps-") as folder:
        file = Path(folder) / "steps.txt"
        steps.write(chosen, file)
        return _pytest("tests/system/model", MODEL_STEPS=str(file))


def _mutants() -> bool:
    print("each protection removed, in the model and in the code:", flush=True)
    return _pytest("-s", "tests/system/model/mutants")


def _pytest(*arguments: str, **environment: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=spin.HERE.parent, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(("killed: ", "FAILED", "ERROR"))]
    told += done.stdout.splitlines()[-1:]
    print("\n".join(f"  {line}" for line in (told if done.returncode == 0 else done.stdout.splitlines()[-60:])))
    return done.returncode == 0


if __name__ == "__main__":
    main()
