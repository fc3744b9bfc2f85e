"""The console's server: standalone until Ctrl-C, or in a running event loop."""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import webbrowser
from collections.abc import AsyncIterator, Iterator

import httpx
import uvicorn
from starlette.types import ASGIApp

from nexmdm_cli.console.app import application
from nexmdm_cli.console.entry import Address, Entry
from nexmdm_cli.console.forwarding import Forwarding
from nexmdm_cli.listening import listen


def serve(api_url: str, auth: httpx.Auth, *, host: str = "127.0.0.1", port: int = 0, open_browser: bool = True) -> None:
    """Serve the console until Ctrl-C; print its URL, which contains a one-time code, and the file for later use.

    Args:
        api_url: the API's URL, without `/v1`.
        auth: signs the page's requests.
        port: 0 selects a free one.

    Raises:
        ValueError: the host is not a loopback address.
        OSError: the port is in use.
    """

    async def until_interrupted() -> None:
        async with running(api_url, auth, host=host, port=port) as address:
            print(f"console: {address.url}\nagain: {address.file.as_uri()}", flush=True)
            if open_browser:
                # Not the URL itself, because every user of this machine can read a browser's arguments.
                await asyncio.to_thread(webbrowser.open, address.file.as_uri())
            await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(until_interrupted())


@contextlib.asynccontextmanager
async def running(api_url: str, auth: httpx.Auth, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Address]:
    """Run the console in the current event loop for the duration of the block; yields how to open it."""
    listener = _listen(host, port)
    token = secrets.token_urlsafe(32)
    authority = _authority(listener)
    entry = Entry(authority, token)
    async with Forwarding(api_url, auth) as forwarding:
        server = _Server(application(forwarding, entry, authority, token))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            with entry as address:
                yield address
        finally:
            server.should_exit = True
            await serving
            listener.close()


def _listen(host: str, port: int) -> socket.socket:
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(f"host: {host!r} is not a loopback address; use 127.0.0.1 or ::1")
    return listen(address, port, "choose another port for the console")


def _authority(listener: socket.socket) -> str:
    """The `Host` header that a browser on this machine sends."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    """A uvicorn server that does not handle signals and prints nothing."""

    def __init__(self, application: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=2,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
