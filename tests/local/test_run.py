"""`make run` for real: rows match the buckets sent, commands run once, and no process is left however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from local.postgres.embedded import ROOT
from tests.local.processes import ended, eventually


class Run:
    """A run with its own state folder; `wait_for` waits for a text in its output."""

    def __init__(self, state, *options):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.run", "--state", str(state), "--port", "0", "--interval", "1", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._reading = threading.Thread(target=lambda: self.lines.extend(iter(self._process.stdout.readline, "")))
        self._reading.start()

    def wait_for(self, text, seconds=60):
        deadline = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            assert self._process.poll() is None, self.lines
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)

    def processes(self):
        return psutil.Process(self._process.pid).children(recursive=True)

    def gateway(self):
        return next(process for process in self.processes() if "local.gateway" in process.cmdline())

    def send(self, number):
        self._process.send_signal(number)

    def end(self, seconds=90):
        code = self._process.wait(seconds)
        self._reading.join()
        self._process.stdout.close()
        return code


@pytest.fixture
def start(url, tmp_path):
    started = []

    def start(*options):
        started.append(Run(tmp_path / "state", *options))
        return started[-1]

    yield start
    for run in started:
        run.send(signal.SIGKILL)
        run.end()


def test_bounded_run_ends_with_its_verdict_though_the_gateway_is_killed(start, db, tmp_path):
    db.execute("INSERT INTO devices (id, alias, created_at) VALUES ('q', 'quiet', now() - interval '1 hour')")
    run = start("--devices", "5", "--commands", "0.3", "--minutes", "0.25", "--watch", "1")
    run.wait_for("accepted 0")
    run.gateway().kill()
    run.wait_for("the gateway is running again")
    assert run.end() == 0, run.lines
    assert any("alert: Silent: quiet (never heard from)" in line for line in run.lines), run.lines
    assert any(re.match(r"console: http://127\.0\.0\.1:\d+/start#code=[\w-]+$", line) for line in run.lines)
    last = next(line for line in reversed(run.lines) if not line.startswith("audit:"))
    assert "online 5/5" in last
    assert "5xx 0" in last
    assert "sent" in last.partition("commands:")[2]
    assert len(json.loads((tmp_path / "state" / "fleet.json").read_text())) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_run_leaves_no_process_however_it_ends(start, number, tmp_path):
    run = start("--devices", "3")
    run.wait_for("online")
    announced = tmp_path / "state" / "stack.json"  # where the nexmdm command finds the stack and its key pair
    assert announced.stat().st_mode & 0o777 == 0o600
    eventually(lambda: len(run.processes()) >= 2)
    children = run.processes()
    run.send(number)
    assert run.end(30) == (-9 if number == signal.SIGKILL else 0), run.lines
    assert ended(children)
    assert announced.exists() == (number == signal.SIGKILL)


def test_second_run_in_the_same_state_folder_is_refused(start):
    first = start("--devices", "1")
    first.wait_for("starting PostgreSQL")
    second = start("--devices", "1")
    assert second.end() == 1
    assert "another run uses" in second.lines[-1]


def test_missing_rows_are_reported_as_wrong(start, db):
    run = start("--devices", "3")
    # A device sends its next report after it got the answer to the one before. Whether a report that was not answered
    # is stored, no one can say.
    answered = """
        DELETE FROM device_heartbeats h USING device_heartbeats later
        WHERE later.device_id = h.device_id AND later.bucket > h.bucket RETURNING h.hb_id
    """
    eventually(lambda: db.execute(answered), seconds=60)
    children = run.processes()
    run.send(signal.SIGTERM)
    assert run.end() == 1
    assert ended(children)
    assert any(line.startswith("WRONG: ") and "distinct buckets were sent" in line for line in run.lines)


def test_unreachable_database_ends_the_run_with_a_message(tmp_path):
    environment = {**os.environ, "DATABASE_URL": "postgresql://postgres@127.0.0.1:1/none"}
    done = subprocess.run(
        [sys.executable, "-m", "local.run", "--state", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "local.run: " in done.stderr
