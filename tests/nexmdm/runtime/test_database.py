"""Promise O1: after any failure, the next call in the same environment works or returns one 503."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg2
import pytest
from nexmdm.runtime import database
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import Unavailable
from psycopg2.extensions import make_dsn

from local.postgres import embedded
from tests.support.postgres import run_sql
from tests.support.races import in_own_thread
from tests.support.relay import Relay
from tests.support.relay import relay as relayed

KILL_ME = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
def line(url) -> Iterator[tuple[Relay, Database]]:
    with relayed(url) as line:
        through = Database(make_dsn(line.url))
        yield line, through
        through.close()


@pytest.fixture
def notes(db) -> Database:
    db.execute("CREATE TABLE notes (n int PRIMARY KEY)")
    return db


def kept(db: Database) -> list[int]:
    return [row["n"] for row in db.execute("SELECT n FROM notes ORDER BY n")]


def works(db: Database) -> bool:
    return db.execute("SELECT 1 AS n") == [{"n": 1}]


# --- one statement


def test_single_statement_is_durable_when_it_returns(url, notes):
    notes.execute("INSERT INTO notes VALUES (1)")
    other = Database(make_dsn(url))
    assert kept(other) == [1]
    other.close()


def test_a_statement_without_rows_returns_none_and_one_with_rows_returns_them_by_name(notes):
    assert notes.execute("INSERT INTO notes VALUES (1), (2)") == []
    assert notes.execute("SELECT n, n * %(factor)s AS more FROM notes", {"factor": 3}) == [
        {"n": 1, "more": 3},
        {"n": 2, "more": 6},
    ]


def test_killed_backend_causes_one_outage(db):
    assert works(db)
    with pytest.raises(Unavailable):
        db.execute(KILL_ME)
    assert works(db)


def test_repeatable_statement_survives_a_lost_connection(line):
    relay, db = line
    assert works(db)
    relay.cut()
    assert db.execute("SELECT 1 AS n", repeatable=True) == [{"n": 1}]


def test_unrepeatable_statement_is_not_repeated(line, notes):
    relay, db = line
    assert works(db)
    relay.lose_answers()
    with pytest.raises(Unavailable):
        db.execute("INSERT INTO notes VALUES (1)")
    db.execute("INSERT INTO notes VALUES (2)")
    assert kept(notes) == [1, 2]


def test_repeatable_statement_runs_at_most_twice(line):
    relay, db = line
    assert works(db)
    del relay.sent[:]
    with pytest.raises(Unavailable):
        db.execute(KILL_ME, repeatable=True)
    assert [sent for sent in relay.sent if sent != "X"] == ["Q", "Q"]
    assert works(db)


def test_closed_port_is_an_outage(url):
    db = Database("postgresql://postgres@127.0.0.1:1/nothing")
    for _ in range(2):
        with pytest.raises(Unavailable):
            db.execute("SELECT 1", repeatable=True)


def test_statement_timeout_is_an_outage_and_keeps_the_connection(db):
    before = db.execute("SELECT pg_backend_pid() AS pid")
    db.execute("SET statement_timeout = '50ms'")
    with pytest.raises(Unavailable):
        db.execute("SELECT pg_sleep(60)")
    assert db.execute("SELECT pg_backend_pid() AS pid") == before


@pytest.mark.parametrize("code", ["40P01", "40001"])
def test_deadlock_or_serialization_victim_runs_once_more(notes, code):
    notes.execute("CREATE SEQUENCE attempts")
    notes.execute(f"""CREATE FUNCTION the_first_time_is_a_victim() RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE attempt bigint := nextval('attempts'); BEGIN
            IF attempt = 1 THEN RAISE EXCEPTION 'victim' USING ERRCODE = '{code}'; END IF; RETURN attempt; END $$""")
    assert notes.execute("SELECT the_first_time_is_a_victim() AS n", repeatable=True) == [{"n": 2}]
    notes.execute("ALTER SEQUENCE attempts RESTART")
    with pytest.raises(Unavailable):
        notes.execute("SELECT the_first_time_is_a_victim()")


# --- a server that accepts connections and does not respond


def test_silent_server_is_given_up_after_half_the_time_and_the_statement_repeated(line, monkeypatch):
    monkeypatch.setattr(database, "_LEAST_SECONDS", 0)  # lets the second attempt have the other half of the time
    relay, db = line
    assert works(db)
    relay.fall_silent()
    db.wait_at_most(2)
    assert db.execute("SELECT 1 AS n", repeatable=True) == [{"n": 1}]


@pytest.mark.parametrize("repeatable", [False, True])
def test_server_that_stays_silent_is_an_outage_before_the_deadline(line, repeatable):
    relay, db = line
    assert works(db)
    relay.fall_silent(new=True)
    db.wait_at_most(1)
    with pytest.raises(Unavailable):
        db.execute("SELECT 1", repeatable=repeatable)
    relay.speak_again()
    # A statement after the deadline is still attempted, because a send may have to be settled.
    assert works(db)


def test_silence_in_a_transaction_rolls_all_of_it_back(line, notes):
    relay, db = line
    db.wait_at_most(1)
    with pytest.raises(Unavailable), db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        relay.fall_silent()
        tx.execute("INSERT INTO notes VALUES (2)", repeatable=True)
    assert works(db)
    relay.cut()
    assert kept(notes) == []


def test_without_a_deadline_a_statement_waits(db):
    db.wait_at_most(None)
    assert db.execute("SELECT 1 AS n, pg_sleep(1.5)")[0]["n"] == 1


def test_statement_that_the_server_refuses_is_not_an_outage(notes):
    notes.execute("INSERT INTO notes VALUES (1)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        notes.execute("INSERT INTO notes VALUES (1)")
    with pytest.raises(psycopg2.errors.SyntaxError):
        notes.execute("SELEKT")
    assert works(notes)


# --- transactions


def test_transaction_commits_all_or_nothing(notes):
    with notes.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        tx.execute("INSERT INTO notes VALUES (2)")
    with pytest.raises(ZeroDivisionError), notes.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (3)")
        raise ZeroDivisionError
    assert kept(notes) == [1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_base_exception_rolls_back(notes, error):
    with pytest.raises(error), notes.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        raise error
    assert kept(notes) == []
    notes.execute("INSERT INTO notes VALUES (2)")
    assert kept(notes) == [2]


def test_transaction_begins_on_a_new_connection_if_the_old_one_is_stale(line, notes):
    relay, db = line
    assert works(db)
    relay.cut()
    with db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
    assert kept(notes) == [1]


@pytest.mark.parametrize("repeatable", [False, True])
def test_connection_lost_in_a_transaction_rolls_all_of_it_back(line, notes, repeatable):
    """A repeatable statement is not repeated either if the earlier part of its transaction is lost."""
    relay, db = line
    with pytest.raises(Unavailable), db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        relay.cut()
        tx.execute("INSERT INTO notes VALUES (2)", repeatable=repeatable)
    assert kept(notes) == []
    assert works(db)


def test_commit_without_a_response_is_an_outage_and_not_repeated(line, notes):
    relay, db = line
    with pytest.raises(Unavailable), db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        relay.lose_answers()
    assert kept(notes) == [1]
    assert works(db)


# --- BaseException during a call


class Interrupted(BaseException):
    pass


@contextlib.contextmanager
def interrupted_when(sleeping: Database) -> Iterator[None]:
    """Raise in this thread, by SIGUSR1, as soon as the server runs a pg_sleep for it."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    def watch() -> None:
        asleep = "pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while not sleeping.execute(f"SELECT pid FROM {asleep}"):
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
        # Python runs the handler when the driver returns from libpq, which waits for the server.
        sleeping.execute(f"SELECT pg_cancel_backend(pid) FROM {asleep}")

    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def test_exception_during_a_query_leaves_no_result_for_the_next_call(url, db):
    watcher = Database(make_dsn(url))
    with pytest.raises((Interrupted, Unavailable)), interrupted_when(watcher):
        db.execute("SELECT 'of the one before' AS n, pg_sleep(60)")
    watcher.close()
    assert works(db)


def test_exception_during_a_transaction_rolls_it_back(url, db, notes):
    watcher = Database(make_dsn(url))
    with pytest.raises((Interrupted, Unavailable)), interrupted_when(watcher), db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        tx.execute("SELECT pg_sleep(60)")
    watcher.close()
    db.execute("INSERT INTO notes VALUES (2)")
    assert kept(notes) == [2]


def raising_at(step: int) -> Callable[..., Any]:
    """A trace function that raises at the given line, counted over the lines that run in nexmdm's database module."""
    left = step

    def trace(frame: FrameType, what: str, _: object) -> Callable[..., Any] | None:
        nonlocal left
        if frame.f_code.co_filename != database.__file__:
            return None
        if what == "line":
            left -= 1
            if left == 0:
                raise Interrupted
        return trace

    return trace


def inserting_is_interrupted(own: Database, step: int) -> bool:
    before = sys.gettrace()
    sys.settrace(raising_at(step))
    try:
        with own.transaction() as tx:
            tx.execute("INSERT INTO notes VALUES (%(n)s)", {"n": step})
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


def test_exception_between_any_two_lines_leaves_no_open_transaction(url, notes):
    """Lambda's own timeout handlers, SIGTERM and Ctrl-C can raise at any line."""
    steps = 0
    for step in range(1, 500):
        own = Database(make_dsn(url))
        own.execute("SELECT 1")
        interrupted = in_own_thread(partial(inserting_is_interrupted, own, step))
        # The next call runs alone, is durable, and gets its own result.
        assert own.execute("INSERT INTO notes VALUES (%(n)s) RETURNING n", {"n": -step}) == [{"n": -step}], step
        assert {"n": -step} in notes.execute("SELECT n FROM notes"), step
        own.close()
        if not interrupted:
            break
        steps += 1
    assert steps > 20
    assert {"n": steps + 1} in notes.execute("SELECT n FROM notes")


# --- failover


def test_read_only_connection_is_replaced(url, db, notes):
    """After a failover that the connection survived, it belongs to a reader and a new connection to the writer."""
    db.execute("SET default_transaction_read_only = on")
    db.execute("INSERT INTO notes VALUES (1)", repeatable=True)
    db.execute("SET default_transaction_read_only = on")
    with pytest.raises(Unavailable):
        db.execute("INSERT INTO notes VALUES (2)")
    db.execute("INSERT INTO notes VALUES (3)")
    assert kept(notes) == [1, 3]


@pytest.fixture(scope="module")
def standby() -> Iterator[str]:
    """A server in recovery, like an Aurora reader, which refuses every write."""
    version = int(os.environ.get("POSTGRES_VERSION", "18"))
    with tempfile.TemporaryDirectory(prefix="nexmdm-standby-") as folder:
        data = Path(folder) / "data"
        with embedded.start(data, version=version) as url:
            run_sql(url, "CREATE TABLE notes (n int)")
        (data / "standby.signal").touch()
        shutil.chown(data / "standby.signal", data.owner(), data.group())
        with embedded.start(data, version=version) as url:
            yield url


def test_reader_is_an_outage_and_not_an_error(standby):
    """No connection to a reader is kept, whatever the call begins with: the writer may be elsewhere a moment later."""
    db = Database(make_dsn(standby))
    calls = [
        lambda: db.execute("INSERT INTO notes VALUES (1)", repeatable=True),
        lambda: db.execute("SELECT * FROM notes FOR UPDATE"),
        lambda: db.transaction().__enter__(),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            call()
        assert db._connection is None
    assert db.execute("SELECT n FROM notes") == []
    db.close()


# --- no secrets in messages and records


def test_outage_message_contains_nothing_of_the_statement(db):
    with pytest.raises(Unavailable) as raised:
        db.execute(f"{KILL_ME}, %(secret)s", {"secret": "canary"})
    assert "canary" not in str(raised.value)
    assert "canary" not in str(raised.value.document())


def test_outage_is_logged_with_its_reason_and_without_a_password(url, caplog):
    nowhere = Database("postgresql://somebody:canary@127.0.0.1:9/nexmdm")
    with pytest.raises(Unavailable):
        nowhere.execute("SELECT 1")
    (record,) = [record for record in caplog.records if record.message == "database outage"]
    assert record.reason.startswith("127.0.0.1:9: ")
    assert "refused" in record.reason
    assert "canary" not in str(vars(record))


def test_outage_with_a_sqlstate_is_logged_by_its_code_alone(db, caplog):
    with pytest.raises(Unavailable):
        db.execute("DO $$ BEGIN RAISE EXCEPTION 'the canary' USING ERRCODE = 'disk_full'; END $$")
    (record,) = [record for record in caplog.records if record.message == "database outage"]
    assert (record.sqlstate, record.reason) == ("53100", None)
    assert "canary" not in str(vars(record))
