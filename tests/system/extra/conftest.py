"""Fixtures that need Debian packages: a pooler in front of each test's database, a browser in front of a console."""

import re
import uuid
from collections.abc import Iterator

import pytest
from nexmdm.runtime import database, settings

from tests.support.databases import url_of
from tests.support.postgres import run_sql
from tests.support.relay import Relay, relay
from tests.system.extra import browser as chromium
from tests.system.extra import console_stack, pooler

# State that would stay in a session, where the next client's transaction would find it.
SESSION_STATE = re.compile(
    r"(?:^|;)\s*(?:SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)|PREPARE\b|LISTEN\b|CREATE\s+TEMP)"
    r"|pg_(?:try_)?advisory_lock|set_config\([^)]*false",
    re.IGNORECASE,
)


@pytest.fixture(scope="session")
def pooled(server: str) -> Iterator[str]:
    with pooler.running(server) as url:
        yield url


PINNING_BYTES = 16 * 1024  # a longer statement pins an RDS Proxy session to its client
# Calls whose connection is closed afterwards: a queue of heartbeats, and a bulk command with a list of ids.
MAY_BE_LONG = re.compile(r"record_heartbeats_v\d|INSERT INTO command_batches")


def check_protocol(line: Relay) -> None:
    """Raise for anything that a transaction-mode pooler refuses or mixes up."""
    assert line.statements
    # Sent by psycopg2 at the end of an autocommit block, only in migrations; it leaves no state in the session.
    stateful = [text for text in line.statements if SESSION_STATE.search(text) and not text.endswith(" TO DEFAULT")]
    assert stateful == []
    assert [startup for startup in line.startups if b"options" in startup] == []
    long = [text for text in line.statements if len(text.encode()) > PINNING_BYTES]
    assert [text[:200] for text in long if not MAY_BE_LONG.search(text)] == []
    assert set(line.sent) <= {"Q", "X"}, "only simple queries are allowed: a session must hold no prepared statement"


@pytest.fixture
def line(url: str, pooled: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """The test's database behind the pooler, which DATABASE_URL names."""
    name = url.partition("?")[0].rsplit("/", 1)[1]
    with relay(url_of(pooled, name)) as line:
        monkeypatch.setenv("DATABASE_URL", line.url)
        _forget()
        yield line
        _forget()
    check_protocol(line)


@pytest.fixture
def empty_line(server: str, pooled: str) -> Iterator[Relay]:
    """A database without a schema, behind the pooler."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name}")
    with relay(url_of(pooled, name)) as line:
        yield line
    check_protocol(line)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def _forget() -> None:
    database.connection().close()
    settings.load.cache_clear()
    database.connection.cache_clear()


@pytest.fixture(scope="module")
def browser():
    with chromium.running() as started:
        yield started


@pytest.fixture(scope="module")
def stack(server, template):
    with console_stack.stack(server, template) as started:
        yield started


@pytest.fixture
def page(browser, stack):
    """The console, opened by its printed URL. The page may log no complaint."""
    with chromium.opened(browser, stack.address) as (page, complaints):
        yield page
        assert complaints == []
