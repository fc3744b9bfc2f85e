"""The parts that all sections share: one server, one database at head, and the sizes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from nexmdm.runtime import database, settings

from bench import fixture
from local import template
from tests.support.databases import url_of


class Sizes(msgspec.Struct, frozen=True):
    """rows: number of expired heartbeats, and of heartbeats in the large table. rounds: how often a pair of statements
    is measured. known: number of commands among which one is found."""

    rows: int = 2_000_000
    small_rows: int = 10_000
    devices: int = 100_000
    small_devices: int = 1_000
    rounds: int = 1_000
    processor_calls: int = 10_000
    bulk: int = 10_000
    commands: int = 1_000_000
    events: int = 1_000_000
    asked: int = 20
    bulk_rounds: int = 5
    sends: int = 1_000
    known: int = 2_000
    connections: tuple[int, ...] = (1, 2, 4, 8, 16)
    load_rounds: int = 3
    load_seconds: int = 2
    idle_seconds: float = 5
    removal_rounds: int = 2
    starts: int = 5
    requests: int = 400
    crowd_rounds: int = 30


QUICK = Sizes(
    rows=8_000,
    small_rows=2_000,
    devices=2_000,
    small_devices=200,
    rounds=20,
    processor_calls=100,
    bulk=200,
    commands=10_000,
    events=10_000,
    asked=2,
    bulk_rounds=2,
    sends=64,
    known=50,
    connections=(1, 2),
    load_rounds=1,
    load_seconds=1,
    idle_seconds=0.5,
    removal_rounds=1,
    starts=1,
    requests=20,
    crowd_rounds=1,
)


class Stage(msgspec.Struct):
    """migration_seconds: the duration of migrating an empty database. results: passed from one section to another."""

    server: str
    sizes: Sizes
    migration_seconds: float = 0
    results: dict[str, float] = {}

    @property
    def head(self) -> str:
        return url_of(self.server, "at_head")

    def build(self) -> None:
        with fixture.connected(self.server) as db:
            db.execute("CREATE DATABASE at_head")
            # The planner uses the same cost settings as on AWS.
            parameters = template.document()["Resources"]["DatabaseParameters"]["Properties"]["Parameters"]
            db.execute(f"ALTER SYSTEM SET random_page_cost = {float(parameters['random_page_cost'])}")
            db.execute("SELECT pg_reload_conf()")
        start = time.perf_counter()
        fixture.migrate(self.head)
        self.migration_seconds = time.perf_counter() - start
        fixture.fill_devices(self.head)

    @contextmanager
    def copy(self, name: str, source: str = "at_head") -> Iterator[str]:
        """Copy an unused database and set DATABASE_URL to the copy; yields its URL and drops it at the end."""
        with fixture.connected(self.server) as db:
            db.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY file_copy")
            db.execute("CHECKPOINT")  # what the copy wrote is not to be paid for by what is measured
        url = url_of(self.server, name)
        try:
            with pointed_at(url):
                yield url
        finally:
            with fixture.connected(self.server) as db:
                db.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def durable(self, on: bool) -> None:
        """Set whether a commit waits for the disk. If both sides of a ratio commit, waiting would hide the
        difference."""
        with fixture.connected(self.server) as db:
            db.execute(f"ALTER SYSTEM SET fsync = {'on' if on else 'off'}")
            db.execute("SELECT pg_reload_conf()")


@contextmanager
def pointed_at(url: str, **variables: str) -> Iterator[None]:
    """Set DATABASE_URL and other settings during the block, as in a function's environment."""
    given = {"DATABASE_URL": url, **variables}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    _forget()
    try:
        yield
    finally:
        _forget()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _forget() -> None:
    if database.connection.cache_info().currsize:
        database.connection().close()
    database.connection.cache_clear()
    settings.load.cache_clear()
