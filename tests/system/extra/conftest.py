"""What needs Debian packages: a pooler before each test's database, a browser before a console."""

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

# What would stay in a session that the next transaction, of somebody else, finds.
SESSION_STATE = re.compile(
    r"(?:^|;)\s*(?:SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)|PREPARE\b|LISTEN\b|CREATE\s+TEMP)"
    r"|pg_(?:try_)?advisory_lock|set_config\([^)]*false",
    re.IGNORECASE,
)


@pytest.fixture(scope="session")
def pooled(server: str) -> Iterator[str]:
    with pooler.running(server) as url:
        yield url


PINNING_BYTES = 16 * 1024  # a longer statement pins a session of RDS Proxy to its client
# Whose connection is closed after the answer: a queue of heartbeats, and a bulk command with a list of ids.
MAY_BE_LONG = re.compile(r"record_heartbeats_v\d|INSERT INTO command_batches")


def looked_at(line: Relay) -> None:
    """Raises for what a transaction-mode pooler refuses or mixes up."""
    assert line.statements
    # What psycopg2 says at the end of an autocommit block, in migrations alone: it leaves a session as any other is.
    stateful = [text for text in line.statements if SESSION_STATE.search(text) and not text.endswith(" TO DEFAULT")]
    assert stateful == []
    assert [startup for startup in line.startups if b"options" in startup] == []
    long = [text for text in line.statements if len(text.encode()) > PINNING_BYTES]
    assert [text[:200] for text in long if not MAY_BE_LONG.search(text)] == []
    assert set(line.sent) <= {"Q", "X"}, "simple queries only: nothing is prepared in a session"


@pytest.fixture
def line(url: str, pooled: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """The test's database behind the pooler, named by DATABASE_URL."""
    name = url.partition("?")[0].rsplit("/", 1)[1]
    with relay(url_of(pooled, name)) as line:
        monkeypatch.setenv("DATABASE_URL", line.url)
        _forget()
        yield line
        _forget()
    looked_at(line)


@pytest.fixture
def empty_line(server: str, pooled: str) -> Iterator[Relay]:
    """A database without a schema behind the pooler."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name}")
    with relay(url_of(pooled, name)) as line:
        yield line
    looked_at(line)
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
    """The console, opened as its printed line is followed; it may not complain of anything."""
    with chromium.opened(browser, stack.address) as (page, complaints):
        yield page
        assert complaints == []
