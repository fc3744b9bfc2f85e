"""The custom resource: CloudFormation always gets a response, and no deploy downgrades the schema."""

import json
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.error import URLError
from urllib.parse import urlencode

import psycopg2
import pytest
from nexmdm.runtime import database, settings
from nexmdm.schema import check
from psycopg2.extensions import make_dsn, parse_dsn

from functions.migrate import custom_resource, reason
from functions.migrate.handler import MigrationFailed, handler
from local import template
from migrations.guard import LOCK
from tests.support.cloudformation import CloudFormation
from tests.support.databases import url_of
from tests.support.postgres import run_sql


@pytest.fixture
def empty(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without tables, which DATABASE_URL names."""
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
    return SimpleNamespace(
        get_remaining_time_in_millis=lambda: int(seconds * 1000), log_stream_name="2026/11/28/[$LATEST]abc"
    )


def revision(url: str) -> str:
    with psycopg2.connect(make_dsn(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        return cursor.fetchone()[0]


def test_create_migrates_makes_partitions_and_responds(empty: str, cloudformation: CloudFormation):
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


def test_database_ahead_of_the_code_is_unchanged(url: str, cloudformation: CloudFormation):
    """On a rollback, CloudFormation sends Update with the old code to a schema that the new code made."""
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


def failed(cloudformation: CloudFormation, seconds: float = 60) -> str:
    """The reason that CloudFormation shows after a failed Create. Lambda reports the same error, without a chain."""
    with pytest.raises(MigrationFailed) as raised:
        handler(event(cloudformation, "Create"), context(seconds))
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    (answer,) = cloudformation.answers
    assert answer["Status"] == "FAILED"
    assert answer["Reason"] == f"{raised.value} (log stream 2026/11/28/[$LATEST]abc has more)"
    assert len(json.dumps(answer)) < 4096
    return str(raised.value)


def pointed_at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nexmdm_owner:s3cr3t@{address}/nexmdm")
    settings.load.cache_clear()


def test_failed_revision_is_named_with_the_server_message(empty: str, cloudformation: CloudFormation):
    run_sql(empty, "CREATE TABLE devices (secret text)")
    told = failed(cloudformation)
    assert told == (
        'revision 20251018_7ac6ecbe4e31_baseline: DuplicateTable (42P07): relation "devices" already exists'
    )


def test_unresolvable_database_host_is_named(empty, monkeypatch, cloudformation: CloudFormation):
    pointed_at(monkeypatch, "no-such-cluster.invalid:5432")
    assert re.fullmatch(
        r"OperationalError: .*no-such-cluster\.invalid.*(Name or service not known|nodename nor servname).*",
        failed(cloudformation),
    )


def test_closed_port_is_named_with_the_socket_message(empty, monkeypatch, cloudformation: CloudFormation):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    pointed_at(monkeypatch, f"127.0.0.1:{port}")
    told = failed(cloudformation)
    assert told.startswith("OperationalError: ")
    assert f"127.0.0.1:{port}" in told
    assert "Connection refused" in told
    assert "s3cr3t" not in told


def test_refused_login_is_reported_with_the_server_message(empty: str, monkeypatch, cloudformation: CloudFormation):
    dsn = parse_dsn(empty)
    stranger = {**dsn, "user": "no_such_role", "password": "s3cr3t"}
    query = urlencode({name: value for name, value in stranger.items() if name != "dbname"})
    monkeypatch.setenv("DATABASE_URL", f"postgresql:///{dsn['dbname']}?{query}")
    settings.load.cache_clear()
    told = failed(cloudformation)
    assert told.startswith("OperationalError: ")
    assert "no_such_role" in told
    assert "s3cr3t" not in told


def test_invalid_setting_is_named_to_cloudformation(empty, monkeypatch, cloudformation: CloudFormation):
    monkeypatch.setenv("DATABASE_PORT", "s3cr3t")
    settings.load.cache_clear()
    assert failed(cloudformation) == "SettingsError: DATABASE_PORT is wrong: it should hold a port"


def test_value_that_a_revision_could_not_read_is_not_reported(url: str):
    with psycopg2.connect(make_dsn(url)) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.Error) as raised:
            cursor.execute("SELECT 's3cr3t'::uuid")
        assert reason.of(raised.value) == (
            'InvalidTextRepresentation (22P02): invalid input syntax for type uuid: "..."'
        )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("s3cr3t"),
        psycopg2.ProgrammingError('invalid dsn: "postgresql://u:s3cr3t@[h/db"'),
        psycopg2.OperationalError('bad: "postgresql://u:s3cr3t@h/db"'),
        URLError("s3cr3t"),
        RuntimeError("s3cr3t"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_that_may_contain_a_secret_is_reported_by_type_only(error: Exception):
    assert reason.of(error) == type(error).__name__


def test_migrate_responds_before_its_own_timeout(url: str, cloudformation: CloudFormation):
    """Another run holds the lock for longer than this one may take."""
    run_sql(url, "UPDATE alembic_version SET version_num = 'e8a41f63d7c2'")
    with psycopg2.connect(make_dsn(url)) as holder, holder.cursor() as cursor:
        cursor.execute(f"SELECT {LOCK}")
        with pytest.raises(MigrationFailed, match="another migration"):
            handler(event(cloudformation, "Update"), context(seconds=16))
    assert [answer["Status"] for answer in cloudformation.answers] == ["FAILED"]


def test_rejected_response_is_sent_again(url: str, cloudformation: CloudFormation):
    cloudformation.refusals = 2
    handler(event(cloudformation, "Update"), context())
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"]


def test_hanging_migration_is_reported_in_time(url: str, cloudformation: CloudFormation):
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


@pytest.mark.parametrize(
    "url",
    [
        "https://cloudformation-custom-resource-response-euwest1.s3-eu-west-1.amazonaws.com/arn?X-Amz-Signature=1",
        "https://cloudformation-custom-resource-response-cnnorth1.s3.cn-north-1.amazonaws.com.cn/arn?a=1",
        "https://s3.us-gov-west-1.amazonaws.com:443/cloudformation-custom-resource-response-usgovwest1/arn",
    ],
)
def test_hosts_of_cloudformation_get_a_response(url: str):
    assert custom_resource.Answer({"ResponseURL": url}, "id")


@pytest.mark.parametrize(
    "url",
    [
        "http://cloudformation-custom-resource-response-euwest1.s3.amazonaws.com/",  # not HTTPS
        "https://amazonaws.com.attacker.example/",
        "https://attacker.example/?x=.amazonaws.com",
        "https://attacker.example#.amazonaws.com",
        "https://xamazonaws.com/",
        "https://user@s3.amazonaws.com/",
        "https://s3.amazonaws.com:8443/",
        "https://s3.amazonaws.com@attacker.example/",
        "https://attacker.example\\.amazonaws.com/",
        "https://[::1/",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "",
    ],
)
def test_other_hosts_get_no_response(empty: str, url: str, cloudformation: CloudFormation):
    with pytest.raises(custom_resource.NoAnswer):
        handler(event(cloudformation, "Create") | {"ResponseURL": url}, context())
    assert cloudformation.answers == []


def test_template_names_no_other_host():
    document = template.document()
    holders = [
        document["Globals"]["Function"],
        *(each.get("Properties", {}) for each in document["Resources"].values()),
    ]
    variables = {name for holder in holders for name in holder.get("Environment", {}).get("Variables", {})}
    assert "DATABASE_HOST" in variables
    assert "RESPONSE_HOST" not in variables
