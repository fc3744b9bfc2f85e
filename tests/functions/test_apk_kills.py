"""Promise A1 when processes die: every URL has a committed row, and surplus rows do not outnumber the kills."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from nexmdm.builds import downloads
from nexmdm.runtime import database, settings
from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn

from tests.support.api import ROOT, call, enroll, event
from tests.support.builds import promoted
from tests.support.relay import relay
from tests.support.s3 import Bucket

# An execution environment that serves downloads until it dies. Each line of output is one URL that was returned.
ENVIRONMENT = """
import json, sys
from types import SimpleNamespace
from functions.apk_download.handler import handler
sent = json.load(open(sys.argv[1]))
context = SimpleNamespace(aws_request_id="r", function_name="f", get_remaining_time_in_millis=lambda: 9000)
out = open(int(sys.argv[2]), "wb", buffering=0)
while True:
    answer = handler(sent, context)
    if answer["statusCode"] == 302:
        out.write(answer["headers"]["Location"].encode() + b"\\n")
"""
KILLS = 12


@pytest.fixture
def prepared(bucket: Bucket, tmp_path) -> str:
    """A file with the event of a new phone that requests the latest build, which it may do 20 times an hour."""
    promoted(2)
    made = call("POST", "/v1/enroll-tokens", {"aliases": ["new phones"], "scope": "apk_download"})
    _, sent = event("GET", "/v1/apk/download/latest", token=made.json["items"][0]["token"])
    path = tmp_path / "event.json"
    path.write_text(json.dumps(sent))
    return str(path)


def rows(db: Database) -> int:
    return db.execute("SELECT count(*) AS n FROM apk_download_events")[0]["n"]


class Environment:
    """`line()` is the next URL returned, or nothing once the process is dead and its output fully read."""

    def __init__(self, path: str, url: str) -> None:
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENVIRONMENT, path, str(writing)],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": url},
            pass_fds=[writing],
            stdout=subprocess.DEVNULL,
        )
        os.close(writing)
        self.out = os.fdopen(reading, "rb")

    def kill(self) -> list[bytes]:
        self.process.send_signal(signal.SIGKILL)
        rest = self.out.read().splitlines()
        self.process.wait()
        self.out.close()
        return rest


def test_url_has_a_committed_row_after_sigkill_at_any_moment(prepared: str, url: str, db: Database):
    chance = random.Random(4)
    addresses: list[bytes] = []
    for _ in range(KILLS):
        environment = Environment(prepared, url)
        addresses += [environment.out.readline() for _ in range(chance.randint(1, 6))]
        # The kill hits one of the next requests; the machine's scheduling makes the exact moment random.
        timer = threading.Event()
        timer.wait(chance.uniform(0, 0.02))
        addresses += environment.kill()
    assert len(addresses) >= KILLS
    assert all(parse_qs(urlsplit(address.decode()).query)["X-Amz-Expires"] == ["300"] for address in addresses)
    assert len(addresses) <= rows(db) <= len(addresses) + KILLS


def test_process_killed_before_its_row_arrived_returns_no_url(prepared: str, url: str, db: Database):
    """The relay stops forwarding before the statement: nothing is committed, and no URL is returned."""
    with relay(url) as line:
        environment = Environment(prepared, line.url)
        environment.out.readline()
        line.close()
        left = environment.kill()
    assert rows(db) in (len(left) + 1, len(left) + 2)


def test_lost_database_response_returns_no_unrecorded_url(prepared: str, url: str, db: Database, monkeypatch):
    with relay(url) as line:
        monkeypatch.setenv("DATABASE_URL", line.url)
        settings.load.cache_clear()
        database.connection.cache_clear()
        sent = json.loads(Path(prepared).read_text())
        token = sent["headers"]["authorization"].removeprefix("Bearer ")
        assert call("GET", "/v1/apk/download/latest", token=token).status == 302
        line.lose_answers()
        answer = call("GET", "/v1/apk/download/latest", token=token)
        assert answer.status == 302
        # The row was committed, its response lost, and the statement run again: one row more than URLs.
        assert rows(db) == 3
        line.close()
        document = call("GET", "/v1/apk/download/latest", token=token)
        assert document.problem(503)
        assert "location" not in document.headers
    assert rows(db) == 3
    database.connection().close()


def test_download_row_is_committed_when_the_call_returns(bucket: Bucket, url: str, db: Database):
    """Another connection looks for the row before the URL is signed."""
    build_id = promoted(2)
    _, token = enroll("lobby")
    own = Database(make_dsn(url))
    build = downloads.issue(own, downloads.Credential(token, from_address=False), build_id, "com.nexmdm", 600)
    assert db.execute("SELECT build_id FROM apk_download_events") == [{"build_id": build.build_id}]
    own.close()
