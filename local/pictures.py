"""`make pictures`, `python -m local.pictures`: creates the README's pictures from a running `make run`.

Needs Debian's Chromium and the packages of requirements/extra.txt. Writes docs/pictures: the console in light and dark,
a terminal with real output, and the architecture.
"""

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from local import architecture

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/pictures"
STACK = ROOT / ".nexmdm/stack.json"
COMMANDS = (
    "nexmdm status --max-silent 100",
    "nexmdm devices list --alias-prefix sim- --limit 4",
    "nexmdm send ping --to {device}",
    "nexmdm events --limit 3",
)
SECONDS = 90
CHROMIUM = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / "architecture.svg").write_text(architecture.svg())
    with _stack() as environment:
        time.sleep(30)  # the fleet has reported, and the operator has sent its first commands
        _terminal(environment)
        _console(environment)


@contextlib.contextmanager
def _stack() -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "local.run", "--devices", "40"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        try:
            deadline = time.monotonic() + SECONDS
            while not (STACK.exists() and json.loads(STACK.read_bytes())["pid"] == running.pid):
                if running.poll() is not None or time.monotonic() > deadline:
                    sys.exit("local.run did not start; run `make run` to see why")
                time.sleep(0.5)
            yield {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "110"}
        finally:
            running.terminate()
            running.wait(30)


def _terminal(environment: dict[str, str]) -> None:
    listed = subprocess.run(
        ["nexmdm", "devices", "list", "--alias-prefix", "sim-", "--limit", "1", "--json"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    device = json.loads(listed.stdout)[0]["alias"]
    console = Console(record=True, width=112, file=open(os.devnull, "w"))  # noqa: SIM115
    for command in COMMANDS:
        command = command.format(device=device)
        console.print(Text(f"$ {command}", style="bold"))
        console.print(Text.from_ansi(_output(command, environment)))
        console.print()
    (PICTURES / "terminal.svg").write_text(console.export_svg(title="nexmdm", theme=MONOKAI))


def _output(command: str, environment: dict[str, str]) -> str:
    """The command's output to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command.split(), env=environment, cwd=ROOT, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        parts: list[bytes] = []
        with contextlib.suppress(OSError):  # the other end was closed
            while part := os.read(ours, 65_536):
                parts.append(part)
        process.wait()
    os.close(ours)
    text = b"".join(parts).decode().replace("\r\n", "\n")
    return re.sub(r"[^\n]*\r", "", text).strip("\n")  # an overwritten progress line


def _console(environment: dict[str, str]) -> None:
    command = ["nexmdm", "console", "--no-browser"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            url = next(found[0] for line in serving.stdout if (found := re.search(r"(http|file)://\S+", line)))
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM))
                page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light", locale="en-GB")
                page.goto(url)
                page.get_by_role("heading", level=1).wait_for()
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    page.wait_for_timeout(1_500)
                    page.screenshot(path=PICTURES / f"console-{scheme}.png")
                browser.close()
        finally:
            serving.terminate()


if __name__ == "__main__":
    main()
