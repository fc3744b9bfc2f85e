"""Remove each protection in turn; the suite must fail: `python -m tests.system.torture.mutations [WORD ..]`.

A mutation replaces a text of one file, or of the newest version of a function of the schema (mutations.toml). The tree
is copied. The named tests run once without a mutation and must pass, then once per mutation and must fail; because
races do not occur each time, they get three attempts. WORD selects the mutations whose name contains it.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).resolve().parents[3]
FUNCTIONS = ROOT / "migrations/sql"
WORKERS, CHANCES = 2, 3
RED, GREEN = 1, 0  # pytest's exit codes: tests failed, all passed. Any other code is no result
LIMIT_SECONDS = 900
WHERE = "import functions, local, migrations, nexmdm, nexmdm_cli, tests.support.api as t; print(*(m.__file__ or list(m.__path__)[0] for m in (functions, local, migrations, nexmdm, nexmdm_cli, t)), sep='\\n')"  # noqa: E501


class Mutation(NamedTuple):
    """`times` is how often `old` occurs in the file; each occurrence is replaced."""

    what: str
    file: str
    old: str
    new: str
    tests: list[str]
    times: int = 1

    def source(self, root: Path) -> str:
        """The file without the protection.

        Raises:
            LookupError: The text does not occur `times` times, so the mutation must be adapted to the code.
        """
        text = (root / self.file).read_text()
        if text.count(self.old) != self.times:
            raise LookupError(f"{self.what}: its text stands {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


class Verdict(NamedTuple):
    """red: the suite detected the mutation. why: the first failure, or the problem."""

    mutation: Mutation
    red: bool
    why: str
    seconds: float


def load() -> list[Mutation]:
    entries = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["mutation"]
    for entry in entries:
        if "function" in entry:
            entry["file"] = newest(entry.pop("function"))
    return [Mutation(**entry) for entry in entries]


def newest(function: str) -> str:
    """The file of a function's newest version, which is the one in use."""
    versions = {int(path.stem.rpartition("_v")[2]): path for path in FUNCTIONS.glob(f"{function}_v*.sql")}
    return str(versions[max(versions)].relative_to(ROOT))


class Copy:
    """A copy of the tree in which tests run on the copied sources."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        found = self._run("-c", WHERE)
        strangers = [line for line in found.stdout.splitlines() if not line.startswith(str(folder))]
        if found.returncode or strangers:
            raise RuntimeError(f"not the copied sources: {strangers} {found.stderr}")

    def test(self, names: list[str]) -> subprocess.CompletedProcess[str]:
        options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=60", "--no-header"]
        return self._run("-m", "pytest", *options, *names)

    def judge(self, mutation: Mutation) -> Verdict:
        start, path = time.monotonic(), self.root / mutation.file
        before = path.read_text()
        try:
            path.write_text(mutation.source(self.root))
            for _ in range(CHANCES):
                done = self.test(mutation.tests)
                if done.returncode != GREEN:
                    break
        except (LookupError, subprocess.TimeoutExpired) as error:
            return Verdict(mutation, False, str(error), time.monotonic() - start)
        finally:
            path.write_text(before)
        return Verdict(mutation, done.returncode == RED, _why(done), time.monotonic() - start)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        sources = [self.root, self.root / "layers/nexmdm/src", self.root / "cli/src"]
        variables = {"PYTHONPATH": os.pathsep.join(map(str, sources)), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.root, env={**os.environ, **variables},
            capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS,
        )  # fmt: skip


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == GREEN:
        return "it survived: no test noticed"
    found = re.search(r"^(?:FAILED|ERROR) (?P<first>tests.*)$", done.stdout, re.MULTILINE)
    if done.returncode == RED and found:
        return found["first"].rpartition("::")[2].partition(" - ")[0]
    return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-400:]}"


def run(mutations: list[Mutation]) -> Iterator[Verdict]:
    """Yield the verdicts as they are reached.

    Raises:
        SystemExit: The tests do not pass without a mutation.
    """
    with tempfile.TemporaryDirectory(prefix="nexmdm-mutations-", ignore_cleanup_errors=True) as folder:
        copies = [Copy(Path(folder) / str(n)) for n in range(WORKERS)]
        print("first the tests as they are; they have to pass", flush=True)
        as_it_is = copies[0].test(sorted({name for mutation in mutations for name in mutation.tests}))
        if as_it_is.returncode != GREEN:
            sys.exit(f"they do not:\n{as_it_is.stdout[-3000:]}{as_it_is.stderr[-1000:]}")
        free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in copies:
            free.put(copy)

        def judge(mutation: Mutation) -> Verdict:
            copy = free.get()
            try:
                return copy.judge(mutation)
            finally:
                free.put(copy)

        with ThreadPoolExecutor(WORKERS) as pool:
            for done in as_completed([pool.submit(judge, mutation) for mutation in mutations]):
                yield done.result()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.torture.mutations", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="a part of the mutation's name, such as D1")
    words = parser.parse_args(arguments).words
    chosen = [mutation for mutation in load() if not words or any(word in mutation.what for word in words)]
    if not chosen:
        parser.error(f"no mutation's name contains {' or '.join(words)}; see mutations.toml")
    console, verdicts = Console(width=None if sys.stdout.isatty() else 200), []
    for verdict in run(chosen):
        verdicts.append(verdict)
        mark = "red" if verdict.red else "SURVIVED"
        print(f"{mark:8} {verdict.mutation.what} ({verdict.seconds:.0f} s)", flush=True)
    survived = [verdict for verdict in verdicts if not verdict.red]
    console.print(table(verdicts))
    console.print(f"{len(verdicts)} protections taken away, {len(verdicts) - len(survived)} noticed")
    return 1 if survived or not verdicts else 0


def table(verdicts: list[Verdict]) -> Table:
    made = Table("protection taken away", "the suite", "noticed by")
    for verdict in sorted(verdicts, key=lambda verdict: verdict.mutation.what):
        # The name of a test may contain brackets, which rich would interpret as markup.
        made.add_row(escape(verdict.mutation.what), "red" if verdict.red else "SURVIVED", escape(verdict.why))
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
