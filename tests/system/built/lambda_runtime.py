"""A built artifact in Lambda's own runtime, without Docker: the SAM CLI's interface emulator and awslambdaric.

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
# `make rehearse` makes each function record its AWS calls; otherwise only the artifact can be imported.
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
        """Invoke the function, one call at a time: two concurrent calls crash the emulator."""
        answer = httpx.post(self._url, json=event, timeout=120)
        assert answer.status_code == 200, (answer.status_code, answer.text, self.log.read_text()[-3000:])
        return answer.json()

    def peak_mb(self) -> float:
        """The largest resident size of the runtime process so far."""
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
    """The unzipped size, as Lambda counts it."""
    files = (path for folder in paths for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 2**20


def import_seconds(function: Function) -> float:
    """Seconds from a fresh process to a loaded handler, minus those of an empty process."""

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run(
            [str(PYTHON), "-c", code], cwd=BUILT / function.logical_id, env=environment(function), check=True
        )
        return time.perf_counter() - start

    module = function.handler.rpartition(".")[0]
    return min(run(f"import {module}") for _ in range(3)) - min(run("") for _ in range(3))


def environment(function: Function) -> dict[str, str]:
    """The variables that Lambda sets, and none of this process: an artifact that needs more of them is incomplete."""
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
        # The effect of LoggingConfig in the template.
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
