"""A session that the server ended while its function was idle fails no request: every route is called once on such a
connection."""

import select

import httpx
import psycopg2
import pytest
from nexmdm.runtime import database
from psycopg2.extensions import make_dsn

from tests.support.api import call
from tests.support.postgres import run_sql
from tests.system.access import stage as stages
from tests.system.access.routes import ENTRIES

TOKENS = {"device": "device", "download": "device", "enrollment": "register good"}


@pytest.fixture
def stage(url: str, fake_fcm, bucket) -> stages.Stage:
    return stages.set_up()


def wait_until_the_server_ends_the_session() -> None:
    """Use the server's `idle_session_timeout`, as template.yaml sets it for a database that pauses."""
    connection = database.connection()._connection
    assert connection is not None, "the last call left no open connection"
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    assert poller.poll(30_000), "the server did not end the session"


def test_no_route_fails_on_a_connection_that_the_server_ended(url: str, stage: stages.Stage):
    with psycopg2.connect(make_dsn(url)) as own:
        name = own.info.dbname
    run_sql(url, f"ALTER DATABASE {name} SET idle_session_timeout = '100ms'")
    database.connection().close()
    wrong, ended = [], 0
    for key, entry in ENTRIES.items():
        database.connection().execute("SELECT 1")
        wait_until_the_server_ends_the_session()
        ended += 1
        status = answered(key, stage)
        if status != entry.right:
            wrong.append(f"{key}: {status}, not {entry.right}")
    assert wrong == []
    assert ended == len(ENTRIES)


def answered(key: str, stage: stages.Stage) -> int:
    entry = ENTRIES[key]
    made = httpx.Request("GET", f"http://api.test{filled(entry.path, stage)}")
    body = filled(entry.body, stage)
    token = stage.tokens[TOKENS[entry.kind]] if entry.kind in TOKENS else None
    return call(key.split()[0], made.url.path, body, token=token, query=dict(made.url.params)).status


def filled(value: object, stage: stages.Stage) -> object:
    if isinstance(value, dict):
        return {name: filled(each, stage) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, stage) for each in value]
    if isinstance(value, str):
        for name, text in stage.names.items():
            value = value.replace(f"{{{name}}}", text)
    return value
