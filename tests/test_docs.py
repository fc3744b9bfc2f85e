"""Every command in the documents is run, against `make run`'s stack with its fleet, in the order in which it stands.

The ```sh and ```python blocks of one document are one shell session. What needs AWS or a phone is listed here by its
beginning, with the reason; everything else has to end with 0.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.api import ROOT

DOCUMENTS = sorted(path.relative_to(ROOT) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>sh|python)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)

AWS = "needs an account"
NOT_RUN = {
    "make run": "is what runs already",
    "make test": "is this suite",
    "make build validate": "CI runs it by itself; minutes",
    "make deploy": AWS,
    "make e2e STACK_URL": AWS,
    "make logs": AWS,
    "aws ": AWS,
    "run ": "calls `aws lambda invoke`",
    "renew ": "calls `aws lambda`",
    'eval "$(aws ': AWS,
    "rm account.json": "the file of the line before it, which needs an account",
    "adb ": "needs a phone",
    "make torture": "minutes; a part of it is this suite's",
    "make mutations": "minutes",
    "for file in requirements/layer.txt": "needs a service that knows vulnerabilities",
    "make build-host": "minutes; make test-built begins with it",
    "export DATABASE_URL=": "needs a PostgreSQL that containers reach",
    "make migrate samples": "the same",
    'echo "{\\"Parameters': "the same",
    ".venv-build/bin/sam local": "needs Docker",
    ". .venv/bin/activate": "nexmdm is on the PATH here, wherever the suite runs from",
}
# What a document's reader has in the environment.
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
    """The statements of a shell script: the shortest runs of lines that bash takes as whole."""
    whole, part = [], ""
    for line in text.splitlines(keepends=True):
        part += line
        parsed = subprocess.run(["bash", "-n"], input=part, capture_output=True, text=True, check=False)
        if not parsed.returncode and not parsed.stderr and not part.endswith("\\\n"):
            whole.append(part)
            part = ""
    assert not part, f"bash does not take this as whole:\n{part}"
    return whole


def is_run(statement: str) -> bool:
    return not any(statement.startswith(beginning) for beginning in NOT_RUN)


def script(document: Path, url: str) -> str:
    """One session; it says on stderr which block it has come to."""
    lines = ["set -euo pipefail\n"]
    for block in blocks(document):
        lines.append(f"echo '--- {document}:{block.line}' >&2\n")
        if block.language == "python":
            lines.append(f"python <<'THE-BLOCK'\n{block.text}THE-BLOCK\n")
        else:
            lines += [statement for statement in statements(block.text) if is_run(statement)]
    return "".join(lines).replace(LOCAL_API, url)


@pytest.fixture(scope="module")
def checkout(server: str, template: str) -> Iterator[Path]:
    """A folder like a clone's, whose `.nexmdm` is of a running `local.run` and of nobody's own."""
    from tests.conftest import run_sql, url_of

    name = f"docs_{os.getpid()}"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    with tempfile.TemporaryDirectory(prefix="nexmdm-docs-") as folder:
        checkout = Path(folder)
        for entry in ROOT.iterdir():
            if entry.name not in (".nexmdm", ".git"):
                (checkout / entry.name).symlink_to(entry)
        options = [
            "--devices",
            "3",
            "--interval",
            "1",
            "--commands",
            "5",
            "--port",
            "0",
            "--state",
            checkout / ".nexmdm",
        ]
        with subprocess.Popen(
            [sys.executable, "-m", "local.run", *options],
            cwd=checkout,
            env={**os.environ, "DATABASE_URL": url_of(server, name), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            for line in running.stdout:
                if "online 3/3" in line:
                    break
            else:
                pytest.fail("local.run ended")
            yield checkout
            running.send_signal(signal.SIGINT)
            print("".join(running.communicate(timeout=60)[0].splitlines(keepends=True)[-20:]))
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d)], ids=str)
def test_what_a_document_tells_to_run_runs(checkout, server, document):
    if shutil.which("curl") is None and "curl" in (ROOT / document).read_text():
        pytest.skip("its examples are in curl, which this machine does not have")
    stack = json.loads((checkout / ".nexmdm" / "stack.json").read_text())
    keys = {"AWS_ACCESS_KEY_ID": stack["access_key_id"], "AWS_SECRET_ACCESS_KEY": stack["secret_access_key"]}
    from tests.conftest import url_of

    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(checkout),
        "XDG_CONFIG_HOME": str(checkout / ".config"),
        "DATABASE_URL": url_of(server, f"docs_{os.getpid()}"),
        # As docs/deploy.md's `eval` and the stack's outputs would set them.
        **keys,
        "AWS_SESSION_TOKEN": "",
        "API_URL": stack["url"],
    }
    start = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", script(document, stack["url"])],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    print(f"{document}: {time.monotonic() - start:.1f} s")
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_what_is_not_run_is_still_in_a_document():
    every = [s for d in DOCUMENTS for block in blocks(d) if block.language == "sh" for s in statements(block.text)]
    for beginning in NOT_RUN:
        assert any(statement.startswith(beginning) for statement in every), f"no document has {beginning!r} any more"


def test_a_wrong_command_would_be_found(tmp_path):
    assert statements("a 'b\nc' \\\n  d\ne\n") == ["a 'b\nc' \\\n  d\n", "e\n"]
    assert not is_run("aws s3 ls")
    assert is_run("nexmdm status")
