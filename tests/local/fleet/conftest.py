"""A fake server with adjustable responses, and a fleet that a test drives step by step."""

import asyncio
import contextlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from local.fleet.fleet import Fleet
from local.fleet.pace import Pace

QUICK = Pace(interval=0.05, announced_scale=0.05 / 600, backoff_scale=0.001, duplicate_share=0, offline_share=0)
CALM = Pace(interval=600, backoff_scale=1, duplicate_share=0, offline_share=0, two_broadcasts_share=0)
KEY = "the-key"


class Request(NamedTuple):
    method: str
    path: str
    headers: dict
    body: object


class FakeServer:
    """Records every request. `answer` returns (status, document[, headers]) and may be replaced."""

    def __init__(self):
        self.requests = []
        self.answer = self.good
        self.open_connections = 0
        self.most_connections = 0
        self.lock = threading.Lock()

    def good(self, request):
        if request.path.startswith("/v1/register"):
            return 200, {"device_token": f"token-{len(self.to('/v1/register'))}", "device_id": "an-id"}
        if request.path == "/v1/heartbeats":
            return 200, {"results": [{"status": "created"}] * len(request.body["heartbeats"])}
        return 200, {"ok": True, "status": "created"}

    def handle(self, request):
        with self.lock:
            self.requests.append(request)
        status, document, *headers = self.answer(request)
        return status, document, headers[0] if headers else {}

    def to(self, path):
        return [request for request in list(self.requests) if request.path.startswith(path)]

    def statuses(self, number):
        """The statuses that were reported for an installation, in order."""
        reports = [request.body for request in self.to("/v1/apk/installation/update")]
        return [report["status"] for report in reports if report["installation_id"] == number]

    def connected(self, change):
        with self.lock:
            self.open_connections += change
            self.most_connections = max(self.most_connections, self.open_connections)


@contextlib.contextmanager
def serving(fake):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            fake.connected(1)

        def finish(self):
            fake.connected(-1)
            super().finish()

        def handle_any(self):
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, json.loads(content) if content else None)
            status, document, more = fake.handle(request)
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = handle_any

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        # A phone in the field opens up to 143 connections at the same time.
        request_queue_size = 256
        daemon_threads = True

        def handle_error(self, request, client_address):
            """Ignore the broken connections of a fleet that was closed."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    httpd = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    fake.url = f"http://127.0.0.1:{httpd.server_port}"
    try:
        yield fake
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture
def fake_server():
    with serving(FakeServer()) as fake:
        yield fake


@pytest.fixture
def storage_host():
    """A second fake server that plays the storage of builds."""
    with serving(FakeServer()) as fake:
        yield fake


async def tokens_for(aliases):
    return {alias: f"enroll-{alias}" for alias in aliases}


@pytest.fixture
def run(fake_server):
    """run(until, count=1, ...) lets a fleet live until `until(fleet)` is true, and returns it."""

    def live(until, count=1, pace=QUICK, after=None, **options):
        async def main():
            fleet = Fleet(fake_server.url, count, tokens_for, pace, **options)
            running = asyncio.create_task(fleet.run())
            async with asyncio.timeout(20):
                while not until(fleet) and not running.done():
                    await asyncio.sleep(0.01)
            running.cancel()
            [failure] = await asyncio.gather(running, return_exceptions=True)
            if not isinstance(failure, asyncio.CancelledError):
                raise failure
            if after:
                await after(fleet)
            await fleet.close()
            return fleet

        return asyncio.run(main())

    return live


@pytest.fixture
def drive(fake_server):
    """drive(story, profile) awaits `story(device)` with an enrolled device that does nothing on its own."""

    def live(story, profile, pace=CALM, enroll=True, by_qr_code=False, keep=None, keys=()):
        async def main():
            fleet = Fleet(
                fake_server.url, 1, tokens_for, pace, (profile,), keep=keep, hmac_keys=tuple(keys), attended=False
            )
            [device] = fleet.devices
            device.by_qr_code = by_qr_code
            try:
                async with asyncio.timeout(20):
                    if enroll:
                        await device.enroll("an-enrollment-token")
                        await device.send_waiting()
                        await settled(device)
                    await story(device)
            finally:
                await fleet.close()
            return device

        return asyncio.run(main())

    return live


async def settled(device):
    """Wait until the device has finished its own tasks."""
    await device.settled()


@pytest.fixture
def after():
    """await after(device) waits until the device has finished all of its own tasks."""
    return settled


@pytest.fixture
def message():
    """message(action, request_id, ...) returns the data of an FCM message."""

    def build(action, request_id="r-1", **parameters):
        named = {"action": action, "request_id": request_id, "correlation_id": request_id, "device_id": "an-id"}
        return {**named, "ts": "2026-01-01T00:00:00.000Z", **parameters}

    return build
