"""Run SPIN on dispatch.pml: exhaustive searches, counterexamples, random walks, and the edges of the state graph."""

import re
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
MODEL = HERE / "dispatch.pml"
LIMIT_SECONDS = 900
# Depth and size of the state table: enough for every run; an overflow does not omit states.
SEARCH = ["-E", "-m200000", "-w26"]


class Row(NamedTuple):
    """A dispatch in the model, and its device's FCM token; dispatch.pml describes the fields."""

    state: int
    fence: int
    attempts: int
    refused: int
    resends: int
    repeats: int
    keys: int
    lease: int
    next: int
    fcm: int
    secret: int
    over: int
    done: int
    seen: int
    delivery: int
    own: int
    heard: int
    payload: int
    restored: int
    token: int


class Step(NamedTuple):
    """One transition: who did what, with the row before and after it."""

    name: str
    arguments: tuple[int, ...]
    before: Row
    after: Row

    def line(self) -> str:
        numbers = (" ".join(map(str, part)) for part in (self.arguments, self.before, self.after))
        return f"{self.name} | " + " | ".join(numbers)

    @classmethod
    def read(cls, line: str) -> "Step":
        name, arguments, before, after = line.split(" | ")
        return cls(name, _numbers(arguments), Row(*_numbers(before)), Row(*_numbers(after)))


class Run(NamedTuple):
    name: str
    bounds: dict[str, int]
    formula: str | None = None
    quick: bool = False

    @property
    def defines(self) -> list[str]:
        return [f"-D{name}={value}" for name, value in self.bounds.items()]


class Verdict(NamedTuple):
    """violated: the text of the assertion or the formula, None if everything holds."""

    states: int
    transitions: int
    depth: int
    seconds: float
    violated: str | None
    trail: list[Step]


class SpinMissing(Exception):
    """SPIN or a C compiler is not installed."""

    def __str__(self) -> str:
        return "SPIN and a C compiler are needed: apt-get install spin gcc (Debian), or see spinroot.com"


def runs() -> list[Run]:
    return [Run(**entry) for entry in tomllib.loads((HERE / "runs.toml").read_text())["run"]]


def properties() -> set[str]:
    """The names of the assertions of the model."""
    text = MODEL.read_text()
    behind = r"assert\([^;]*?\);?\s*/\* ([A-Za-z]\w*) \*/"
    return set(re.findall(behind, text))


def formulas() -> set[str]:
    """The names of the temporal properties."""
    return set(re.findall(r"^ltl (\w+)", MODEL.read_text(), re.MULTILINE))


def check(run: Run, *, without: Iterable[str] = (), shortest: bool = False) -> Verdict:
    """Search every state of a run.

    Args:
        without: protections to remove, by their names in the model: NO_FENCE, ...
        shortest: search breadth first, to find the shortest counterexample.
    """
    defines = [*run.defines, *(f"-D{name}" for name in without)]
    options = ["-DBFS"] if shortest else []
    if run.formula:
        defines.append("-DLTL")
        options = ["-DNFAIR=3"]  # words of a bit for each process
        search = ["-a", "-f", "-N", run.formula, *SEARCH]
    else:
        options, search = [*options, "-DSAFETY"], SEARCH
    with _compiled(defines, options) as pan:
        start = time.monotonic()
        output = pan.run(*search)
        seconds = time.monotonic() - start
        if "max search depth too small" in output or "out of memory" in output:
            raise RuntimeError(f"{run.name}: the search was cut short:\n{output[-2000:]}")
        errors = int(_found(r"errors: (\d+)", output))
        violated: str | None = None
        trail: list[Step] = []
        if errors:
            if run.formula:
                violated = run.formula
            else:
                simulated = pan.trail(defines)
                violated, trail = _property(simulated), list(_steps(simulated.splitlines()))
        return Verdict(
            states=int(float(_found(r"([\d.e+]+) states, stored", output))),
            transitions=int(float(_found(r"([\d.e+]+) transitions", output))),
            depth=int(_found(r"depth reached (\d+)", output)) if not shortest else 0,
            seconds=seconds,
            violated=violated,
            trail=trail,
        )


def walks(run: Run, seed: int, count: int, length: int = 120) -> list[list[Step]]:
    """Random walks through the model: the first path of a randomized search."""
    defines = [*run.defines, f"-DWALK={length}"]
    found = []
    with _compiled(defines, ["-DSAFETY", "-DT_RAND", "-DP_RAND"]) as pan:
        for n in range(count):
            pan.run(f"-RS{seed * 1000 + n + 1}", *SEARCH)
            steps = list(_steps(pan.trail(defines).splitlines()))
            # A client may repeat forever; the first repeat is enough.
            found.append([step for before, step in zip([None, *steps], steps, strict=False) if step != before])
    return found


def edges(run: Run) -> set[Step]:
    """Every step of every state of the run, identified by the row before and after it."""
    found: set[tuple[str, str, str]] = set()
    with _compiled(run.defines, ["-DSAFETY", "-DNOREDUCE", "-DPRINTF"]) as pan, pan.start(*SEARCH) as process:
        assert process.stdout is not None
        name = before = ""
        for line in process.stdout:
            if line.startswith("="):
                name = line
            elif line.startswith("<"):
                before = line
            elif line.startswith(">"):
                found.add((name, before, line))
    return {_step(*lines) for lines in found}


class _Pan:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["./pan", *arguments], cwd=self.folder, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
        )
        return done.stdout + done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["./pan", *arguments], cwd=self.folder, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
        )

    def trail(self, defines: list[str]) -> str:
        done = subprocess.run(
            ["spin", *defines, "-t", "-T", "dispatch.pml"],
            cwd=self.folder, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS,
        )  # fmt: skip
        return done.stdout


class _compiled:
    """Compile a searcher for these bounds in a temporary folder."""

    def __init__(self, defines: list[str], options: list[str]) -> None:
        self._defines, self._options = defines, options

    def __enter__(self) -> _Pan:
        if not shutil.which("spin") or not shutil.which("gcc"):
            raise SpinMissing
        self._folder = tempfile.TemporaryDirectory(prefix="nexmdm-model-")
        folder = Path(self._folder.name)
        shutil.copy(MODEL, folder)
        _succeed(["spin", *self._defines, "-a", "dispatch.pml"], folder)
        _succeed(
            [
                "gcc",
                "-O1" if "-DBFS" in self._options else "-O2",
                "-w",
                "-DVECTORSZ=4096",
                *self._options,
                "-o",
                "pan",
                "pan.c",
            ],
            folder,
        )
        return _Pan(folder)

    def __exit__(self, *_: Any) -> None:
        self._folder.cleanup()


def _succeed(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    if done.returncode or "Error" in done.stdout:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def _steps(lines: list[str]) -> Iterator[Step]:
    name = before = ""
    for line in (raw.strip() for raw in lines):
        if line.startswith("= "):
            if name:
                yield _step(name, before, "> " + before[2:])  # nothing of the row changed
            name = line
        elif line.startswith("< "):
            before = line
        elif line.startswith("> ") and name:
            yield _step(name, before, line)
            name = ""
    if name:
        yield _step(name, before, "> " + before[2:])


def _step(name: str, before: str, after: str) -> Step:
    _, word, *numbers = name.split()
    return Step(word, tuple(map(int, numbers)), Row(*_numbers(before[1:])), Row(*_numbers(after[1:])))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


def _found(pattern: str, output: str) -> str:
    match = re.search(pattern, output)
    if match is None:
        raise RuntimeError(f"unexpected output of SPIN:\n{output[-3000:]}")
    return match[1]


def _property(simulated: str) -> str:
    """The name of the property that a trail violates: the comment behind the assertion at which it ends."""
    at = re.search(r"dispatch\.pml:(\d+), Error: assertion violated", simulated)
    if at is None:
        raise RuntimeError(f"the trail does not end at an assertion:\n{simulated[-2000:]}")
    lines = MODEL.read_text().splitlines()[int(at[1]) - 1 :]
    return _found(r"/\* (\w+) \*/", "\n".join(lines[:3]))
