"""Provide one PostgreSQL server per run, one migrated template database, and one database per test.

Set DATABASE_URL to run the suite against another server; its role must be allowed to create databases and roles.
Otherwise the suite starts an embedded server of the version that POSTGRES_VERSION names (18 or 16).
"""

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import certifi
import hypothesis
import pytest
from nexmdm.heartbeats import partitions
from nexmdm.runtime import database, logs, settings
from psycopg2.extensions import make_dsn

from local.postgres import embedded, logins
from tests.support.api import Device, enroll
from tests.support.databases import Databases, url_of
from tests.support.fixtures import at_head, bucket, cloudformation, empty, fake_fcm, s3_server, topic, webhook  # noqa: F401
from tests.support.postgres import run_sql, upgrade

# Powertools keeps the standard output it first sees. This import makes that the run's, not the first test's capture.
logs.logger()

# Every run uses the same examples, and a slow machine does not fail a test.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def one_root_certificate() -> Iterator[None]:
    """Give HTTP clients one root certificate. Reading certifi's 140 takes each of them 20 ms, and all URLs are http."""
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file, pytest.MonkeyPatch.context() as environment:
        file.write(first + end)
        file.flush()
        environment.setenv("SSL_CERT_FILE", file.name)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of the server's maintenance database."""
    if os.environ.get("DATABASE_URL"):
        logins.make(os.environ["DATABASE_URL"])
        yield os.environ["DATABASE_URL"]
        return
    # Started by root, the server runs as another user, which cannot enter pytest's own folders.
    with (
        tempfile.TemporaryDirectory(prefix="nexmdm-suite-") as folder,
        embedded.start(Path(folder) / "data", version=int(os.environ.get("POSTGRES_VERSION", "18"))) as url,
    ):
        # No test crashes the machine, so the server need not sync to disk.
        run_sql(
            url,
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET full_page_writes = off",
            "SELECT pg_reload_conf()",
        )
        logins.make(url)
        yield url


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a database at the latest revision, with partitions, from which the others are copied."""
    name = f"template_{uuid.uuid4().hex[:8]}"
    run_sql(server, f"CREATE DATABASE {name}")
    upgrade(url_of(server, name))
    config = settings.Settings(database_url=url_of(server, name))
    made = database.Database(config.dsn)
    partitions.ensure_partitions(made, config)
    made.close()
    yield name
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def databases(server: str, template: str) -> Iterator[Databases]:
    databases = Databases(server, template)
    yield databases
    databases.close()


@pytest.fixture
def url(server: str, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of this test's own database, which DATABASE_URL names: a copy of the template without rows."""
    name, fingerprint = databases.take()
    own = url_of(server, name)
    monkeypatch.setenv("DATABASE_URL", own)
    settings.load.cache_clear()
    database.connection.cache_clear()
    yield own
    database.connection().close()
    settings.load.cache_clear()
    database.connection.cache_clear()
    databases.give_back(name, fingerprint)


@pytest.fixture
def db(url: str) -> Iterator[database.Database]:
    """A connection to the test's database."""
    connection = database.Database(make_dsn(url))
    yield connection
    connection.close()


@pytest.fixture
def device(url: str) -> Device:
    """An enrolled device with the alias `lobby` that has not called yet."""
    return Device(*enroll("lobby"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slowest tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/system/", "tests/migrations/")))
