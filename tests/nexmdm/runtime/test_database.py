"""Promise O1: after any failure the next call on the same environment works, or gives one 503."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
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


def test_a_statement_alone_is_durable_when_it_returns(url, notes):
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


def test_a_killed_backend_costs_one_outage_and_then_it_works(db):
    assert works(db)
    with pytest.raises(Unavailable):
        db.execute(KILL_ME)
    assert works(db)


def test_a_repeatable_statement_does_not_notice_that_its_connection_died(line):
    relay, db = line
    assert works(db)
    relay.cut()
    assert db.execute("SELECT 1 AS n", repeatable=True) == [{"n": 1}]


def test_a_statement_that_may_not_be_repeated_is_not(line, notes):
    relay, db = line
    assert works(db)
    relay.lose_answers()
    with pytest.raises(Unavailable):
        db.execute("INSERT INTO notes VALUES (1)")
    db.execute("INSERT INTO notes VALUES (2)")
    assert kept(notes) == [1, 2]


def test_a_repeatable_statement_is_run_twice_at_the_most(line):
    relay, db = line
    assert works(db)
    del relay.sent[:]
    with pytest.raises(Unavailable):
        db.execute(KILL_ME, repeatable=True)
    assert [sent for sent in relay.sent if sent != "X"] == ["Q", "Q"]
    assert works(db)


def test_nobody_listens(url):
    db = Database("postgresql://postgres@127.0.0.1:1/nothing")
    for _ in range(2):
        with pytest.raises(Unavailable):
            db.execute("SELECT 1", repeatable=True)


def test_a_timeout_of_the_server_is_an_outage_and_keeps_the_connection(db):
    before = db.execute("SELECT pg_backend_pid() AS pid")
    db.execute("SET statement_timeout = '50ms'")
    with pytest.raises(Unavailable):
        db.execute("SELECT pg_sleep(60)")
    assert db.execute("SELECT pg_backend_pid() AS pid") == before


@pytest.mark.parametrize("code", ["40P01", "40001"])
def test_a_victim_of_a_deadlock_or_of_a_conflict_is_run_once_more(notes, code):
    notes.execute("CREATE SEQUENCE attempts")
    notes.execute(f"""CREATE FUNCTION the_first_time_is_a_victim() RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE attempt bigint := nextval('attempts'); BEGIN
            IF attempt = 1 THEN RAISE EXCEPTION 'victim' USING ERRCODE = '{code}'; END IF; RETURN attempt; END $$""")
    assert notes.execute("SELECT the_first_time_is_a_victim() AS n", repeatable=True) == [{"n": 2}]
    notes.execute("ALTER SEQUENCE attempts RESTART")
    with pytest.raises(Unavailable):
        notes.execute("SELECT the_first_time_is_a_victim()")


# --- a server that is there and says nothing


def test_silence_costs_a_repeatable_statement_half_of_the_time_and_no_answer(line, monkeypatch):
    monkeypatch.setattr(database, "_LEAST_SECONDS", 0)  # the second try is to live from its half
    relay, db = line
    assert works(db)
    relay.fall_silent()
    db.wait_at_most(2)
    assert db.execute("SELECT 1 AS n", repeatable=True) == [{"n": 1}]


@pytest.mark.parametrize("repeatable", [False, True])
def test_lasting_silence_is_an_outage_before_the_time_is_over(line, repeatable):
    relay, db = line
    assert works(db)
    relay.fall_silent(new=True)
    db.wait_at_most(1)
    with pytest.raises(Unavailable):
        db.execute("SELECT 1", repeatable=repeatable)
    relay.speak_again()
    # A statement that comes late is worth a try all the same: a send may have to be settled.
    assert works(db)


def test_silence_in_a_transaction_loses_all_of_it(line, notes):
    relay, db = line
    db.wait_at_most(1)
    with pytest.raises(Unavailable), db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        relay.fall_silent()
        tx.execute("INSERT INTO notes VALUES (2)", repeatable=True)
    assert works(db)
    relay.cut()
    assert kept(notes) == []


def test_without_an_end_it_waits(db):
    db.wait_at_most(None)
    assert db.execute("SELECT 1 AS n, pg_sleep(1.5)")[0]["n"] == 1


def test_what_the_server_refuses_is_not_an_outage(notes):
    notes.execute("INSERT INTO notes VALUES (1)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        notes.execute("INSERT INTO notes VALUES (1)")
    with pytest.raises(psycopg2.errors.SyntaxError):
        notes.execute("SELEKT")
    assert works(notes)


# --- transactions


def test_a_transaction_commits_all_or_nothing(notes):
    with notes.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        tx.execute("INSERT INTO notes VALUES (2)")
    with pytest.raises(ZeroDivisionError), notes.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (3)")
        raise ZeroDivisionError
    assert kept(notes) == [1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_base_exception_rolls_back(notes, error):
    with pytest.raises(error), notes.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        raise error
    assert kept(notes) == []
    notes.execute("INSERT INTO notes VALUES (2)")
    assert kept(notes) == [2]


def test_a_stale_connection_is_noticed_when_a_transaction_begins(line, notes):
    relay, db = line
    assert works(db)
    relay.cut()
    with db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
    assert kept(notes) == [1]


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_connection_lost_in_a_transaction_loses_all_of_it(line, notes, repeatable):
    """Also a repeatable statement is not run alone when what came before it in the transaction is gone."""
    relay, db = line
    with pytest.raises(Unavailable), db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        relay.cut()
        tx.execute("INSERT INTO notes VALUES (2)", repeatable=repeatable)
    assert kept(notes) == []
    assert works(db)


def test_a_commit_whose_answer_was_lost_is_an_outage_and_not_repeated(line, notes):
    relay, db = line
    with pytest.raises(Unavailable), db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        relay.lose_answers()
    assert kept(notes) == [1]
    assert works(db)


# --- BaseException in mid-call


class Interrupted(BaseException):
    pass


@contextlib.contextmanager
def interrupted_when(sleeping: Database) -> Iterator[None]:
    """SIGUSR1 raises in this thread as soon as the server runs a pg_sleep for it."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    def watch() -> None:
        asleep = "pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while not sleeping.execute(f"SELECT pid FROM {asleep}"):
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
        # Python runs the handler when the driver comes back from libpq, which waits for the server.
        sleeping.execute(f"SELECT pg_cancel_backend(pid) FROM {asleep}")

    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def test_an_exception_while_a_query_runs_leaves_no_answer_for_the_next(url, db):
    watcher = Database(make_dsn(url))
    with pytest.raises((Interrupted, Unavailable)), interrupted_when(watcher):
        db.execute("SELECT 'of the one before' AS n, pg_sleep(60)")
    watcher.close()
    assert works(db)


def test_an_exception_while_a_transaction_runs_rolls_it_back(url, db, notes):
    watcher = Database(make_dsn(url))
    with pytest.raises((Interrupted, Unavailable)), interrupted_when(watcher), db.transaction() as tx:
        tx.execute("INSERT INTO notes VALUES (1)")
        tx.execute("SELECT pg_sleep(60)")
    watcher.close()
    db.execute("INSERT INTO notes VALUES (2)")
    assert kept(notes) == [2]


def raising_at(step: int) -> Callable[..., Any]:
    """A trace function that raises at the given line, counted over the lines that run in nexmdm/database.py."""
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


def test_an_exception_between_any_two_lines_leaves_no_transaction_behind(url, notes):
    """Lambda's own time-out handlers, SIGTERM and Ctrl-C raise where they like."""
    steps = 0
    for step in range(1, 500):
        own = Database(make_dsn(url))
        own.execute("SELECT 1")
        interrupted = False
        before = sys.gettrace()
        sys.settrace(raising_at(step))
        try:
            with own.transaction() as tx:
                tx.execute("INSERT INTO notes VALUES (%(n)s)", {"n": step})
        except Interrupted:
            interrupted = True
        finally:
            sys.settrace(before)
        # The next call is alone, durable, and gets its own answer.
        assert own.execute("INSERT INTO notes VALUES (%(n)s) RETURNING n", {"n": -step}) == [{"n": -step}], step
        assert {"n": -step} in notes.execute("SELECT n FROM notes"), step
        own.close()
        if not interrupted:
            break
        steps += 1
    assert steps > 20
    assert {"n": steps + 1} in notes.execute("SELECT n FROM notes")


# --- failover


def test_a_read_only_connection_is_replaced(url, db, notes):
    """As after a failover that the connection survived: the role is a reader's, a new connection is a writer's."""
    db.execute("SET default_transaction_read_only = on")
    db.execute("INSERT INTO notes VALUES (1)", repeatable=True)
    db.execute("SET default_transaction_read_only = on")
    with pytest.raises(Unavailable):
        db.execute("INSERT INTO notes VALUES (2)")
    db.execute("INSERT INTO notes VALUES (3)")
    assert kept(notes) == [1, 3]


@pytest.fixture(scope="module")
def standby() -> Iterator[str]:
    """A server in recovery, as an Aurora reader is: it takes no write from anybody."""
    version = int(os.environ.get("POSTGRES_VERSION", "18"))
    with tempfile.TemporaryDirectory(prefix="nexmdm-standby-") as folder:
        data = Path(folder) / "data"
        with embedded.start(data, version=version) as url:
            run_sql(url, "CREATE TABLE notes (n int)")
        (data / "standby.signal").touch()
        shutil.chown(data / "standby.signal", data.owner(), data.group())
        with embedded.start(data, version=version) as url:
            yield url


def test_a_reader_is_an_outage_and_not_an_error(standby):
    """Whatever a call begins with: the writer may be elsewhere a moment later, so no connection to a reader is kept."""
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


# --- nothing secret


def test_the_text_of_an_outage_says_nothing_of_the_statement(db):
    with pytest.raises(Unavailable) as raised:
        db.execute(f"{KILL_ME}, %(secret)s", {"secret": "canary"})
    assert "canary" not in str(raised.value)
    assert "canary" not in str(raised.value.document())


def test_an_outage_is_recorded_with_its_reason_and_no_password(url, caplog):
    nowhere = Database("postgresql://somebody:canary@127.0.0.1:9/nexmdm")
    with pytest.raises(Unavailable):
        nowhere.execute("SELECT 1")
    (record,) = [record for record in caplog.records if record.message == "database outage"]
    assert record.reason.startswith("127.0.0.1:9: ")
    assert "refused" in record.reason
    assert "canary" not in str(vars(record))


def test_an_outage_with_a_sqlstate_is_recorded_by_it_alone(db, caplog):
    with pytest.raises(Unavailable):
        db.execute("DO $$ BEGIN RAISE EXCEPTION 'the canary' USING ERRCODE = 'disk_full'; END $$")
    (record,) = [record for record in caplog.records if record.message == "database outage"]
    assert (record.sqlstate, record.reason) == ("53100", None)
    assert "canary" not in str(vars(record))
