"""Partitions are made ahead, dropped, and filled from the default one while heartbeats continue."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psycopg2
import pytest
from nexmdm.heartbeats import partitions
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import Unavailable
from psycopg2.extensions import make_dsn

from tests.support.api import Device
from tests.support.postgres import run_sql
from tests.support.races import errors, race

NOW = datetime.now(UTC).replace(microsecond=0)


def insert(db: Database, device: Device, ts: datetime) -> None:
    db.execute(
        """INSERT INTO device_heartbeats (device_id, ts, bucket)
           VALUES (%(device)s, %(ts)s, date_bin('10 seconds', %(ts)s, timestamptz '1970-01-01 00:00:00+00'))""",
        {"device": device.id, "ts": ts},
    )


def where(db: Database) -> dict[str, int]:
    rows = db.execute("SELECT tableoid::regclass::text AS name, count(*) AS n FROM device_heartbeats GROUP BY 1")
    return {row["name"]: row["n"] for row in rows}


def without_partitions(url: str, db: Database) -> None:
    run_sql(url, *(f"DROP TABLE {partition.name}" for partition in partitions.bounds(db)))


def test_partitions_cover_retention_and_a_week_ahead(db: Database):
    bounds = partitions.bounds(db)
    for earlier, later in pairwise(bounds):
        assert earlier.upper == later.lower
    assert bounds[0].lower <= NOW - timedelta(days=2, seconds=10)
    assert bounds[-1].upper >= NOW + timedelta(days=7)


def test_concurrent_callers_make_the_partitions_without_an_error(url: str, db: Database):
    without_partitions(url, db)
    config = settings.load()
    results = race(url, *[lambda own: partitions.ensure_partitions(own, config)] * 4)
    assert errors(results) == []
    assert len(partitions.bounds(db)) == len(partitions.wanted(NOW, config))


def test_rows_of_the_default_partition_move_into_their_own(url: str, db: Database, device: Device):
    without_partitions(url, db)
    for hours in (0, 1, 7, 13):
        insert(db, device, NOW - timedelta(hours=hours))
    assert where(db) == {"device_heartbeats_default": 4}
    before = db.execute("SELECT * FROM device_heartbeats ORDER BY ts")

    partitions.ensure_partitions(db, settings.load())

    assert partitions.in_default(db) == 0
    assert db.execute("SELECT * FROM device_heartbeats ORDER BY ts") == before
    assert len(where(db)) >= 3


def test_heartbeats_that_race_with_the_move_are_stored_once(url: str, db: Database, device: Device):
    without_partitions(url, db)
    run_sql(
        url,
        f"""INSERT INTO device_heartbeats (device_id, ts, bucket)
            SELECT '{device.id}', t, t FROM generate_series(date_bin('10 seconds', now(), 'epoch') - interval '9 hours',
                date_bin('10 seconds', now(), 'epoch') - interval '10 seconds', interval '10 seconds') AS t""",
    )
    start = db.execute("SELECT date_bin('10 seconds', now(), 'epoch') AS at")[0]["at"]
    rows = partitions.in_default(db)
    config = settings.load()

    def beat(own: Database) -> None:
        for n in range(200):
            insert(own, device, start + timedelta(seconds=10 * n))

    results = race(url, lambda own: partitions.ensure_partitions(own, config), beat)

    assert errors(results) == []
    assert sum(where(db).values()) == rows + 200
    assert partitions.in_default(db) == 0


def test_heartbeat_during_the_attachment_finds_the_new_partition(url: str, db: Database, device: Device):
    """A row routed before the attachment is visible would be refused by the default partition (SQLSTATE 23514)."""
    last = partitions.bounds(db)[-1]
    run_sql(url, f"DROP TABLE {last.name}")
    maker = psycopg2.connect(make_dsn(url))
    with maker.cursor() as cursor:
        cursor.execute(
            partitions._MAKE.format(name=last.name, lower=last.lower.isoformat(), upper=last.upper.isoformat())
        )
    results: list[object] = []
    beat = threading.Thread(target=lambda: results.extend(race(url, lambda own: insert(own, device, last.lower))))
    beat.start()
    while not db.execute("SELECT 1 AS waits FROM pg_locks WHERE NOT granted"):
        assert beat.is_alive()
    maker.commit()
    maker.close()
    beat.join()
    assert results == [None]
    assert where(db) == {last.name: 1}


def test_rows_that_arrive_during_the_move_are_moved_too(url: str, db: Database, device: Device):
    """The move waits for the parent table behind an unfinished heartbeat that was routed to the default partition."""
    last = partitions.bounds(db)[-1]
    run_sql(url, f"DROP TABLE {last.name}")
    insert(db, device, last.lower)
    beat = psycopg2.connect(make_dsn(url))
    with beat.cursor() as cursor:
        cursor.execute(
            "INSERT INTO device_heartbeats (device_id, ts, bucket) VALUES (%s, %s, %s)",
            [device.id, *[last.lower + timedelta(hours=1)] * 2],
        )
    results: list[object] = []
    config = settings.load()
    make = threading.Thread(
        target=lambda: results.extend(race(url, lambda own: partitions.ensure_partitions(own, config)))
    )
    make.start()
    while not db.execute("SELECT 1 AS waits FROM pg_locks WHERE NOT granted"):
        assert make.is_alive()
    beat.commit()
    beat.close()
    make.join()
    assert results == [1]
    assert where(db) == {last.name: 2}


@pytest.mark.parametrize("act", ["make", "drop"])
def test_heartbeat_waits_no_longer_than_the_lock_timeout(url: str, db: Database, device: Device, act: str):
    """A long reader holds the table: a statement that needs a strong lock queues behind it, then heartbeats do."""
    config = settings.load()
    last = partitions.bounds(db)[-1].name
    if act == "make":
        run_sql(url, f"DROP TABLE {last}")
    reader = psycopg2.connect(make_dsn(url))
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM device_heartbeats")
        cursor.execute("LOCK TABLE devices IN ROW EXCLUSIVE MODE")

    worker = Database(make_dsn(url))
    outcome: list[object] = []

    def work() -> None:
        try:
            made = partitions.ensure_partitions(worker, config) if act == "make" else partitions.drop(worker, last)
            outcome.append(made)
        except Unavailable as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    db.execute("SET statement_timeout = '5s'")  # ends the test if the promise is broken
    longest = 0.0
    n = 0
    while thread.is_alive():
        begin = datetime.now(UTC)
        insert(db, device, NOW - timedelta(seconds=10 * n))
        db.execute("UPDATE devices SET model = 'x' WHERE id = %(id)s", {"id": device.id})
        longest = max(longest, (datetime.now(UTC) - begin).total_seconds())
        n += 1
        if n == 300:
            reader.rollback()  # from here on the lock is free
    thread.join()
    reader.close()
    worker.close()
    assert longest < 1.5  # two statements with a lock timeout of 0.5 s each, plus time for a slow machine
    assert n > 3
    assert outcome != []


def test_drop_succeeds_once_the_reader_is_gone(url: str, db: Database):
    last = partitions.bounds(db)[-1].name
    reader = psycopg2.connect(make_dsn(url))
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM device_heartbeats")
    worker = Database(make_dsn(url))
    with ThreadPoolExecutor(1) as pool:
        dropped = pool.submit(partitions.drop, worker, last)
        # The pause after the first attempt, which got no lock.
        while not db.execute(
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%partitions.drop%'"
        ):
            assert not dropped.done()
        reader.rollback()
        assert dropped.result() == 0
    assert last not in {partition.name for partition in partitions.bounds(db)}
    reader.close()
    worker.close()


def test_two_callers_may_drop_the_same_partition(url: str, db: Database, device: Device):
    insert(db, device, NOW)
    name = next(p.name for p in partitions.bounds(db) if p.lower <= NOW < p.upper)
    results = race(url, *[lambda own: partitions.drop(own, name)] * 3)
    assert errors(results) == []
    assert sorted(results) == [0, 0, 1]
