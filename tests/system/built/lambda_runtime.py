"""A built artifact in Lambda's own runtime: the interface emulator of the SAM CLI and awslambdaric, without Docker.

with runtime(logical_id, function, {...variables}) as lambda_:
    lambda_.invoke(event)       # the result, or {"errorType": ..., "errorMessage": ...}
    lambda_.peak_mb(), lambda_.started_seconds
"""

import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from local.template import Function
from tests.support.api import ROOT

BUILT = ROOT / ".aws-sam" / "host"
PYTHON = Path(os.environ.get("BUILT_PYTHON", ".venv-build/bin/python")).absolute()
LAYERS = {"migrate": ["NexmdmLayer", "MigrationsLayer"]}
# `make rehearse` has each function write down what it asks of AWS; else nothing but the artifact is there to be
# imported.
RECORDER = [ROOT / "tests" / "support" / "aws_calls"] if "AWS_CALLS" in os.environ else []


class Runtime:
    def __init__(self, function: Function, variables: dict[str, str], log: Path) -> None:
        self.log = log
        address, api = _free_port(), _free_port()
        self._url = f"http://127.0.0.1:{address}/2015-03-31/functions/function/invocations"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    _emulator(),
                    "--log-level=error",
                    f"--runtime-interface-emulator-address=127.0.0.1:{address}",
                    f"--runtime-api-address=127.0.0.1:{api}",
                    *(str(PYTHON), "-m", "awslambdaric", function.handler),
                ],
                cwd=BUILT / function.logical_id,
                env={**environment(function), **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        _wait_for(address)

    def invoke(self, event: Any) -> Any:
        """One at a time: two at once crash the emulator."""
        answer = httpx.post(self._url, json=event, timeout=120)
        assert answer.status_code == 200, (answer.status_code, answer.text, self.log.read_text()[-3000:])
        return answer.json()

    def peak_mb(self) -> float:
        """The runtime process's largest resident size so far."""
        (child,) = psutil.Process(self._process.pid).children(recursive=True)
        status = Path(f"/proc/{child.pid}/status").read_text()
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(kilobytes) / 1024

    def close(self) -> None:
        for child in psutil.Process(self._process.pid).children(recursive=True):
            child.kill()
        self._process.kill()
        self._process.wait()


@contextmanager
def runtime(function: Function, variables: dict[str, str], log: Path) -> Iterator[Runtime]:
    made = Runtime(function, variables, log)
    try:
        yield made
    finally:
        made.close()


def paths(function: Function) -> list[Path]:
    layers = LAYERS.get(function.name, ["NexmdmLayer"])
    return [BUILT / function.logical_id, *(BUILT / layer / "python" for layer in layers)]


def megabytes(paths: list[Path]) -> float:
    """Unzipped, as Lambda counts it."""
    files = (path for folder in paths for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 2**20


def import_seconds(function: Function) -> float:
    """Wall time from a fresh process to a loaded handler, less that of an empty one: a cold start's own part."""

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run(
            [str(PYTHON), "-c", code], cwd=BUILT / function.logical_id, env=environment(function), check=True
        )
        return time.perf_counter() - start

    module = function.handler.rpartition(".")[0]
    return min(run(f"import {module}") for _ in range(3)) - min(run("") for _ in range(3))


def environment(function: Function) -> dict[str, str]:
    """What Lambda sets, and nothing of this process's: an artifact that needs more of it is not complete."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/tmp"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": ":".join(map(str, [*paths(function), *RECORDER])),
        **({"AWS_CALLS": os.environ["AWS_CALLS"]} if RECORDER else {}),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LAMBDA_TASK_ROOT": str(BUILT / function.logical_id),
        "AWS_LAMBDA_FUNCTION_NAME": function.logical_id,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(function.timeout),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        # What LoggingConfig of the template becomes.
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_LOG_LEVEL": "INFO",
        "_HANDLER": function.handler,
    }


def _emulator() -> str:
    code = "import samcli.local.rapid as m; print(list(m.__path__)[0])"
    folder = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    processor = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    emulator = Path(folder) / f"aws-lambda-rie-{processor}"
    if sys.platform == "linux":
        emulator.chmod(0o755)
    return str(emulator)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(f"the emulator does not listen on {port}")
