"""Runs the gateway as a child of `local.run`: restarts it when it dies, and stops it however the parent ends."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
AGAIN_SECONDS = 1.0


class GatewayFailed(Exception):
    """The gateway did not start; the text says why."""


class Supervisor:
    """tell: called with a line when the gateway died and was restarted. logs: for its output."""

    def __init__(self, arguments: list[str], logs: Path, tell: Callable[[str], None]) -> None:
        self._arguments, self._logs, self._tell = arguments, logs, tell
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self, port: int) -> str:
        """Start the gateway and return its URL.

        Raises:
            GatewayFailed: with the end of its output.
        """
        await self._start(port)
        self._watching = asyncio.create_task(self._keep())
        return self.url

    async def stop(self) -> None:
        """Stop the gateway after running requests."""
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()

    async def _start(self, port: int) -> None:
        with open(self._logs, "ab") as logs:
            self._process = await self._spawn(port, logs)
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        if not line.startswith("listening on "):
            await self._process.wait()
            raise GatewayFailed("\n".join(self._logs.read_text(errors="replace").splitlines()[-10:]))
        self.url = line.removeprefix("listening on ").strip()

    async def _spawn(self, port: int, logs: IO[bytes]) -> asyncio.subprocess.Process:
        # A separate session, because the parent handles Ctrl-C. Its standard input is closed when the parent ends.
        return await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "local.gateway", "--port", str(port), "--until-stdin-closes", *self._arguments],
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=logs,
            start_new_session=True,
        )

    async def _keep(self) -> None:
        port = int(self.url.rpartition(":")[2])
        while True:
            assert self._process is not None
            code = await self._process.wait()
            self._tell(f"the gateway ended ({f'signal {-code}' if code < 0 else f'exit code {code}'}), restarting it")
            while True:
                await asyncio.sleep(AGAIN_SECONDS)
                with contextlib.suppress(GatewayFailed):
                    await self._start(port)
                    break
            self._tell("the gateway is running again")
