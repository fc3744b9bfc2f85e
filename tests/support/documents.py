"""Run every command in the documents, in their order, against the stack of `make run` with its fleet.

The ```sh and ```python blocks of one document form one shell session. Commands that need AWS or a phone are listed here
by their beginning, with the reason; every other command must exit with 0.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.api import ROOT
from tests.support.databases import url_of
from tests.support.postgres import run_sql

DOCUMENTS = sorted(path.relative_to(ROOT) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>sh|python)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)

AWS = "needs an account"
DOCKER = "needs Docker, and a database that containers reach"
NOT_RUN = {
    "make run": "is what runs already",
    "make test": "is this suite",
    "make torture": "20 minutes; its bounded part is in this suite",
    "make mutations": "minutes; a run of its own",
    "make build validate": "CI runs it by itself; minutes",
    "make rehearse": "CI runs it by itself; minutes",
    "make pin-ca-bundle": "fetches the bundle from AWS",
    "make deploy": AWS,
    "make e2e STACK_URL": AWS,
    "make logs": AWS,
    "aws ": AWS,
    "cluster=$(aws ": AWS,
    "name=$(aws ": AWS,
    "export PGPASSWORD=$(aws ": AWS,
    "psql ": AWS,
    "renew ": "calls `aws lambda`",
    'eval "$(aws ': AWS,
    "export NEXMDM_HMAC_PRIMARY_KEY=$(aws ": AWS,
    "run ": "calls a deployed function",
    "nexmdm console": "goes on until Ctrl-C; tests/cli/test_console.py runs it",
    "rm account.json": "the file of the line before it, which needs an account",
    "adb ": "needs a phone",
    "nexmdm enroll create lobby --script": "needs an agent that is promoted to all; tests/cli/test_enroll.py runs it",
    "sh kit/": "needs a phone",
    "nexmdm enroll rotate-keys": "needs the keys of a deployed stack",
    ". .venv/bin/activate": "nexmdm is on the PATH here, wherever the suite runs from",
    "for file in requirements/": "fetches a tool and asks a service about every pin",
    "make build-host": DOCKER,
    "export DATABASE_URL=": DOCKER,
    "make migrate samples": DOCKER,
    ".venv/bin/python -m local.fcm --host 172.17.0.1": DOCKER,
    "cat > .aws-sam/env.json": DOCKER,
    ".venv-build/bin/sam local": DOCKER,
}
LOCAL_API = "http://127.0.0.1:8000"


class Block(NamedTuple):
    line: int
    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    source = (ROOT / document).read_text()
    found = []
    for match in BLOCK.finditer(source):
        lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True)]
        found.append(Block(source.count("\n", 0, match.start()) + 2, match["language"], "".join(lines)))
    return found


def statements(text: str) -> list[str]:
    """The statements of a shell script: the shortest runs of lines that bash accepts as complete."""
    whole, part = [], ""
    for line in text.splitlines(keepends=True):
        part += line
        parsed = subprocess.run(["bash", "-n"], input=part, capture_output=True, text=True, check=False)
        if not parsed.returncode and not parsed.stderr and not part.endswith("\\\n"):
            whole.append(part)
            part = ""
    assert not part, f"bash does not accept this as complete:\n{part}"
    return whole


def is_run(statement: str) -> bool:
    return not any(statement.startswith(beginning) for beginning in NOT_RUN)


def script(document: Path, url: str) -> str:
    """One session that prints on stderr which block it has reached."""
    # A response that is an error ends the session, whatever options the document sets.
    lines = ["set -euo pipefail\n", 'curl() { command curl --fail-with-body "$@"; }\n']
    for block in blocks(document):
        lines.append(f"echo '--- {document}:{block.line}' >&2\n")
        if block.language == "python":
            lines.append(f"python <<'THE-BLOCK'\n{block.text}THE-BLOCK\n")
        else:
            lines += [statement for statement in statements(block.text) if is_run(statement)]
    return "".join(lines).replace(LOCAL_API, url)


class Checkout(NamedTuple):
    """folder: like a clone's, with the `.nexmdm` of a running `local.run`. environment: that of a reader."""

    folder: Path
    url: str
    environment: dict[str, str]


@contextmanager
def running_checkout(server: str, template: str) -> Iterator[Checkout]:
    """A stack with three devices, in a folder like a clone's."""
    name = f"docs_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    own = {"DATABASE_URL": url_of(server, name), "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(prefix="nexmdm-docs-") as made:
        folder = Path(made)
        for entry in ROOT.iterdir():
            if entry.name not in (".nexmdm", ".aws-sam", ".git"):
                (folder / entry.name).symlink_to(entry)
        options = ["--devices", "3", "--interval", "1", "--commands", "5", "--port", "0", "--state", folder / ".nexmdm"]
        with subprocess.Popen(
            [sys.executable, "-m", "local.run", *options],
            cwd=folder,
            env={**_ambient(), **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            for line in running.stdout:
                if "online 3/3" in line:
                    break
            else:
                pytest.fail("local.run ended before its stack was ready")
            yield Checkout(folder, *_reader_environment(folder, own))
            running.send_signal(signal.SIGINT)
            said, _ = running.communicate(timeout=60)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")
    assert running.returncode == 0, said[-3000:]


def _ambient() -> dict[str, str]:
    """The environment without the developer's own AWS account and stack."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NEXMDM_"))}


def _reader_environment(folder: Path, own: dict[str, str]) -> tuple[str, dict[str, str]]:
    stack = json.loads((folder / ".nexmdm" / "stack.json").read_text())
    return stack["url"], {
        **_ambient(),
        **own,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / ".config"),
        # Variables that the lines that need an account would have set.
        "API_URL": stack["url"],
        "NEXMDM_HMAC_PRIMARY_KEY": "of-the-stack",
    }


def enroll(checkout: Checkout, alias: str) -> None:
    """Enroll the device that the documents refer to, as if done before."""
    made = bash(checkout, f"nexmdm enroll create {alias} --json")
    token = json.loads(made.stdout)["items"][0]["token"]
    answer = httpx.post(f"{checkout.url}/v1/register", json={"alias": alias}, headers={"X-Admin-Key": token})
    answer.raise_for_status()


def bash(checkout: Checkout, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", text],
        cwd=checkout.folder,
        env=checkout.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def run_commands(document: Path, checkout: Checkout) -> None:
    """Run the commands of one document; raise AssertionError if one fails."""
    if shutil.which("curl") is None and "curl" in (ROOT / document).read_text():
        pytest.skip("its examples are in curl, which this machine does not have")
    enroll(checkout, "lobby")
    done = bash(checkout, script(document, checkout.url))
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
