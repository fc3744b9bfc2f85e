"""The report of a load run can fail: it exposes servers that lie about what they store, and passes an honest one."""

import json
import os
import subprocess
import sys
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import pytest

from tests.support.api import ROOT
from tests.support.postgres import run_sql

DEVICES = 4
STORE = """
INSERT INTO device_heartbeats (device_id, bucket, ts)
SELECT %(device)s, date_bin('1 second', %(ts)s, timestamptz '1970-01-01 00:00:00+00'), %(ts)s
ON CONFLICT DO NOTHING
"""
TWICE = "INSERT INTO device_heartbeats (device_id, bucket, ts) SELECT device_id, bucket, ts FROM device_heartbeats"


class Server:
    """Answers every heartbeat with 200 and `created`; `kind` is what it does with the heartbeat."""

    def __init__(self, url: str, kind: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._kind, self._count, self._lock = kind, 0, threading.Lock()

    def answer(self, path: str, body: dict) -> tuple[int, dict]:
        with self._lock, self._connection.cursor() as cursor:
            if path.startswith("/v1/register"):
                self._count += 1
                name = f"device-{self._count}"
                cursor.execute("INSERT INTO devices (id, alias) VALUES (%s, %s)", [name, name])
                return 200, {"device_id": name, "device_token": name}
            if path == "/v1/heartbeat":
                return self._heartbeat(cursor, body)
            if path == "/v1/heartbeats":  # heartbeats that were queued while a response took long
                answers = [self._heartbeat(cursor, item) for item in body["heartbeats"]]
                return max(status for status, _ in answers), {"results": [result for _, result in answers]}
            return 200, {"ok": True}

    def _heartbeat(self, cursor, body: dict) -> tuple[int, dict]:
        self._count += 1
        if self._kind == "fails" and self._count % 5 == 0:
            return 500, {}
        if self._kind == "stores nothing" or (self._kind == "loses some" and body["device_id"] == "device-1"):
            return 200, {"ok": True, "status": "created"}
        cursor.execute(STORE, {"device": body["device_id"], "ts": datetime.fromisoformat(body["timestamp_utc"])})
        if self._kind == "stores rows twice" and self._count % 8 == 0:
            cursor.execute(TWICE)
        return 200, {"ok": True, "status": "created"}

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def served(url):
    """address(kind) returns the URL of such a server."""
    started = []

    def address(kind: str) -> str:
        server = Server(url, kind)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, document = server.answer(self.path, json.loads(content) if content else {})
                answer = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        started.extend([http.shutdown, http.server_close, server.close])
        return f"http://127.0.0.1:{http.server_port}"

    yield address
    for stop in started:
        stop()


def load_run(address: str, folder, *options: str) -> subprocess.CompletedProcess[str]:
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps({f"sim-{n:04}": "an enrollment token" for n in range(1, DEVICES + 1)}))
    command = [sys.executable, "-m", "local.fleet", "--url", address, "--devices", str(DEVICES), "--report"]
    command += ["--tokens", str(tokens), "--interval", "0.3", "--backoff", "0.01", "--offline", "0", *options]
    environment = {**os.environ, "HEARTBEAT_BUCKET_SECONDS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_honest_server_passes(served, tmp_path):
    done = load_run(served("honest"), tmp_path, "--minutes", "0.05")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good: the rows are the buckets that were sent" in done.stdout
    assert all(name in done.stdout for name in ("p50", "p95", "p99", "errors", "sent", "database"))


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        ("loses some", "accepted heartbeats have no row"),
        ("stores nothing", "accepted heartbeats have no row"),
        ("stores rows twice", "rows are superfluous"),
        ("fails", "got 5xx"),
    ],
)
def test_broken_server_fails(served, url, tmp_path, kind, finding):
    if kind == "stores rows twice":  # a schema without unique buckets, like the previous server's
        run_sql(url, "ALTER TABLE device_heartbeats DROP CONSTRAINT uq_device_heartbeats_device_id_bucket")
    done = load_run(served(kind), tmp_path, "--minutes", "0.05")
    assert done.returncode == 1, done.stdout + done.stderr
    assert finding in done.stdout


def test_run_that_sent_nothing_fails(served, tmp_path):
    done = load_run(served("honest"), tmp_path, "--minutes", "0.01", "--interval", "600")
    assert done.returncode == 1
    assert "nothing was proved" in done.stdout
