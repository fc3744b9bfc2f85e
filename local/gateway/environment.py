"""Execution environments as in Lambda: processes with one invocation at a time, discarded when they fail.

pool = Environments(function, limit=4)
outcome = await pool.invoke(event)      # Outcome(result=...) or Outcome(error=...)
pool.close()
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from local.gateway.bootstrap import LENGTH, Error, Message
from local.postgres import logins
from local.template import Function

ROOT = Path(__file__).resolve().parents[2]
INIT_SECONDS = 10  # Lambda's limit for the initialization of an environment


@dataclass(frozen=True)
class Outcome:
    """The outcome of an invocation: `error` is None, or {errorMessage, errorType, stackTrace?} in Lambda's format."""

    result: Any = None
    error: Error | None = None


class Environments:
    """The environments of one function. If `limit` of them are busy, an invocation waits for one.

    output: for the handlers' stdout and stderr; None for this process's stderr.
    variables: environment variables in addition to those of this process.
    """

    def __init__(
        self,
        function: Function,
        limit: int = 4,
        output: IO[bytes] | None = None,
        variables: dict[str, str] | None = None,
    ) -> None:
        self._function = function
        self._output = output
        self._variables = variables or {}
        self._idle: list[_Environment] = []
        self._all: set[_Environment] = set()
        self._places = asyncio.Semaphore(limit)

    async def invoke(self, event: Any, request_id: str | None = None) -> Outcome:
        async with self._places:
            while self._idle:
                environment = self._idle.pop()  # the most recently used one is the warmest
                if environment.alive():
                    break
                self._discard(environment)
            else:
                environment = _Environment(self._function, self._output, self._variables)
                self._all.add(environment)
            outcome = None
            try:
                outcome = await environment.invoke(event, request_id or str(uuid.uuid4()))
            finally:
                if outcome is not None and not environment.broken:
                    self._idle.append(environment)
                else:
                    self._discard(environment)
            return outcome

    def processes(self) -> list[int]:
        return [environment.process.pid for environment in self._all]

    def close(self) -> None:
        for environment in list(self._all):
            self._discard(environment)
        self._idle.clear()

    def _discard(self, environment: "_Environment") -> None:
        self._all.discard(environment)
        environment.kill()


class _Environment:
    """One process. `broken` means that it must not be used again."""

    def __init__(self, function: Function, output: IO[bytes] | None, variables: dict[str, str]) -> None:
        self._function = function
        self._ours, theirs = socket.socketpair()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.broken = False
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local.gateway.bootstrap", str(theirs.fileno()), function.handler],
                cwd=ROOT,
                env=_with_login({**os.environ, **_lambda_variables(function), **function.environment, **variables}),
                stdin=subprocess.PIPE,
                stdout=output or 2,
                stderr=output or 2,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def alive(self) -> bool:
        return self.process.poll() is None

    async def invoke(self, event: Any, request_id: str) -> Outcome:
        error = None if self._streams else await self._wait_until_ready(request_id)
        if error:
            return Outcome(error=error)
        self._send({"event": event, "request_id": request_id, "timeout": self._function.timeout})
        try:
            answer = await asyncio.wait_for(self._receive(), self._function.timeout)
        except TimeoutError:
            return Outcome(error=self._failed("Sandbox.Timedout", request_id, _timed_out(self._function.timeout)))
        except (OSError, EOFError):
            return Outcome(error=self._failed("Runtime.ExitError", request_id, self._how_it_ended()))
        return Outcome(result=answer.get("result"), error=answer.get("error"))

    async def _wait_until_ready(self, request_id: str) -> Error | None:
        self._streams = await asyncio.open_connection(sock=self._ours)
        try:
            answer = await asyncio.wait_for(self._receive(), INIT_SECONDS)
        except TimeoutError:
            return self._failed("Sandbox.Timedout", request_id, _timed_out(INIT_SECONDS))
        except (OSError, EOFError):
            return self._failed("Runtime.ExitError", request_id, self._how_it_ended())
        self.broken = "error" in answer
        return answer.get("error")

    def _send(self, message: Message) -> None:
        text = json.dumps(message).encode()
        assert self._streams is not None
        self._streams[1].write(LENGTH.pack(len(text)) + text)

    async def _receive(self) -> Message:
        assert self._streams is not None
        reader = self._streams[0]
        (count,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        answer: Message = json.loads(await reader.readexactly(count))
        return answer

    def _failed(self, kind: str, request_id: str, what: str) -> Error:
        self.broken = True
        return {"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {what}"}

    def _how_it_ended(self) -> str:
        self.process.kill()
        code = self.process.wait()
        return f"Runtime exited with error: {f'signal {-code}' if code < 0 else f'exit status {code}'}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self._streams:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._streams[1].close()
        else:
            self._ours.close()


def _with_login(variables: dict[str, str]) -> dict[str, str]:
    """The variables with the function's database login, if the database has that role."""
    url, login = variables.get("DATABASE_URL"), variables.get("DATABASE_USER")
    return {**variables, "DATABASE_URL": logins.url_of(url, login)} if url and login else variables


def _timed_out(seconds: float) -> str:
    return f"Task timed out after {seconds:.2f} seconds"


def _lambda_variables(function: Function) -> dict[str, str]:
    """The variables that Lambda's Python runtime sets; a region only if none is given."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "eu-west-1"
    return {
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_FUNCTION_NAME": function.logical_id,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.logical_id}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"local/[$LATEST]{uuid.uuid4().hex}",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "LAMBDA_TASK_ROOT": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "TZ": ":UTC",
        "_HANDLER": function.handler,
    }
