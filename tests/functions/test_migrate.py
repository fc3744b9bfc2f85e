"""The custom resource: CloudFormation is always answered, nothing ever downgrades."""

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import psycopg2
import pytest
from nexmdm.runtime import database, settings
from nexmdm.schema import check
from psycopg2.extensions import make_dsn

from functions.migrate.handler import handler
from migrations.guard import LOCK
from tests.conftest import run_sql, url_of


class CloudFormation(HTTPServer):
    """Takes the answers that are PUT to the ResponseURL; refuses the first `refusals`."""

    def __init__(self) -> None:
        self.answers: list[dict] = []
        self.types: list[str | None] = []
        self.refusals = 0
        super().__init__(("127.0.0.1", 0), Taker)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/answer?signature=s3cr3t"


class Taker(BaseHTTPRequestHandler):
    server: CloudFormation

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_error(503)
            return
        self.server.types.append(self.headers["content-type"])
        self.server.answers.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    with CloudFormation() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def empty(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without any table, named by DATABASE_URL."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name}")
    monkeypatch.setenv("DATABASE_URL", url_of(server, name))
    settings.load.cache_clear()
    database.connection.cache_clear()
    yield url_of(server, name)
    database.connection().close()
    settings.load.cache_clear()
    database.connection.cache_clear()
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def event(cloudformation: CloudFormation, kind: str) -> dict[str, str]:
    return {
        "RequestType": kind,
        "ResponseURL": cloudformation.url,
        "StackId": "arn:aws:cloudformation:stack",
        "RequestId": "r1",
        "LogicalResourceId": "Schema",
    } | ({"PhysicalResourceId": "nexmdm-schema"} if kind != "Create" else {})


def context(seconds: float = 60) -> SimpleNamespace:
    return SimpleNamespace(get_remaining_time_in_millis=lambda: int(seconds * 1000))


def revision(url: str) -> str:
    with psycopg2.connect(make_dsn(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        return cursor.fetchone()[0]


def test_create_migrates_makes_partitions_and_answers(empty: str, cloudformation: CloudFormation):
    handler(event(cloudformation, "Create"), context())
    (answer,) = cloudformation.answers
    assert answer["Status"] == "SUCCESS"
    assert answer["PhysicalResourceId"] == "nexmdm-schema"
    assert (answer["StackId"], answer["RequestId"], answer["LogicalResourceId"]) == (
        "arn:aws:cloudformation:stack", "r1", "Schema",
    )  # fmt: skip
    assert answer["Data"]["revision"] == revision(empty) == check.REVISION
    assert cloudformation.types == [""]


def test_update_of_a_current_schema_succeeds(url: str, cloudformation: CloudFormation):
    handler(event(cloudformation, "Update"), context())
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"]


def test_a_database_ahead_of_the_code_is_left_as_it_is(url: str, cloudformation: CloudFormation):
    """A rollback: CloudFormation sends Update with the old code to a schema that the new code made."""
    run_sql(url, "UPDATE alembic_version SET version_num = 'ffffffffffff'", "CREATE TABLE of_later (id int)")
    handler(event(cloudformation, "Update"), context())
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"]
    assert revision(url) == "ffffffffffff"


def test_delete_succeeds_without_a_database(monkeypatch: pytest.MonkeyPatch, cloudformation: CloudFormation):
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nothing")
    settings.load.cache_clear()
    handler(event(cloudformation, "Delete"), context())
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"]


def test_delete_changes_nothing(url: str, cloudformation: CloudFormation):
    handler(event(cloudformation, "Delete"), context())
    assert revision(url) == check.REVISION


def test_a_failure_is_answered_without_what_it_says(empty: str, cloudformation: CloudFormation):
    run_sql(empty, "CREATE TABLE devices (secret text)")
    with pytest.raises(Exception, match="devices"):
        handler(event(cloudformation, "Create"), context())
    (answer,) = cloudformation.answers
    assert answer["Status"] == "FAILED"
    assert answer["Reason"] == "ProgrammingError: see the function's log"


def test_it_answers_before_its_own_timeout(url: str, cloudformation: CloudFormation):
    """Another run holds the lock for longer than this one may take."""
    run_sql(url, "UPDATE alembic_version SET version_num = 'e8a41f63d7c2'")
    with psycopg2.connect(make_dsn(url)) as holder, holder.cursor() as cursor:
        cursor.execute(f"SELECT {LOCK}")
        with pytest.raises(SystemExit, match="another migration"):
            handler(event(cloudformation, "Update"), context(seconds=16))
    assert [answer["Status"] for answer in cloudformation.answers] == ["FAILED"]


def test_an_answer_that_was_not_taken_is_given_again(url: str, cloudformation: CloudFormation):
    cloudformation.refusals = 2
    handler(event(cloudformation, "Update"), context())
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"]


def test_a_migration_that_hangs_is_answered_in_time(url: str, cloudformation: CloudFormation):
    holder = psycopg2.connect(make_dsn(url))
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE alembic_version")
    run = threading.Thread(target=handler, args=(event(cloudformation, "Update"), context(seconds=15.5)))
    run.start()
    while not cloudformation.answers:
        assert run.is_alive()
    assert [answer["Status"] for answer in cloudformation.answers] == ["FAILED"]
    assert "longer" in cloudformation.answers[0]["Reason"]
    holder.rollback()
    holder.close()
    run.join()
    assert len(cloudformation.answers) == 1
