"""One database connection per execution environment, and its replacement when it breaks.

A statement runs alone in autocommit, or inside `transaction()`; nothing else commits. A connection that breaks, stops
responding, or is on a read-only server after a failover is closed, and a statement that is safe to repeat runs once
more on a new one. Everything works through a pooler in transaction mode: no session SET, no `options`, no prepared
statement.
"""

import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar

import psycopg2
from psycopg2 import errorcodes, extensions

from nexmdm.runtime import logs, settings
from nexmdm.runtime.errors import Unavailable

# A row as psycopg2 gives it, by column. It stays inside the module that asked: others get a Struct.
Row: TypeAlias = dict[str, Any]
T = TypeVar("T")
Parameters = Mapping[str, Any]
NONE: Parameters = MappingProxyType({})

# The backend or the server went away, or this server accepts no writes: another connection may work.
_ANOTHER_CONNECTION = {
    errorcodes.ADMIN_SHUTDOWN,
    errorcodes.CRASH_SHUTDOWN,
    errorcodes.CANNOT_CONNECT_NOW,
    errorcodes.READ_ONLY_SQL_TRANSACTION,
}
# A statement longer than this makes RDS Proxy pin the session to its client until the client closes it.
_PINNING_BYTES = 16 * 1024
# Nothing was written, and the same statement can succeed a moment later on the same connection.
_SAME_CONNECTION = {errorcodes.DEADLOCK_DETECTED, errorcodes.SERIALIZATION_FAILURE}
# 08 connection, 53 resources (connections, disk, memory), 57 operator intervention (timeouts), 58 system, XX internal.
_OUTAGE_CLASSES = {"08", "53", "57", "58", "XX"}
_OUTAGES = _ANOTHER_CONNECTION | _SAME_CONNECTION | {errorcodes.LOCK_NOT_AVAILABLE}
_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 1  # of an invocation, reserved for reporting that the database does not respond
_LEAST_SECONDS = 0.5  # minimum for a statement near the end of an invocation: settling a command is worth an attempt


class Executor(Protocol):
    """The interface that verbs need: run one statement, alone or in a transaction."""

    def execute(self, sql: str, parameters: Parameters = NONE, *, repeatable: bool = False) -> list[Row]:
        """Run one statement with `%(name)s` parameters and return its rows.

        Args:
            repeatable: running it twice has the same effect as running it once.
        """
        ...


def statement(package: str, name: str) -> str:
    """The text of `<name>.sql` in `package`, without comment lines, in which a `%` would be read as a parameter."""
    with open(f"{sys.modules[package].__path__[0]}/{name}.sql", encoding="utf-8") as file:
        return "".join(line for line in file if not line.lstrip().startswith("--"))


def typed(rows: list[Row], type_: type[T]) -> list[T]:
    """The rows as Structs whose fields are their columns."""
    return [type_(**row) for row in rows]


class Database:
    """A connection that is opened on first use and replaced when it breaks. Not thread-safe."""

    def __init__(self, dsn: str | Callable[[], str]) -> None:
        """dsn: the DSN, or a function that returns one for each new connection, because an IAM token expires in
        minutes."""
        self._dsn = dsn
        self._connection: _Connection | None = None
        self._in_transaction = False
        self._deadline: float | None = None

    def wait_at_most(self, seconds: float | None) -> None:
        """Limit all waiting for the server to this many seconds from now; None removes the limit."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def ping(self) -> None:
        """Raise Unavailable if the database does not respond."""
        self.execute("SELECT 1 AS one", repeatable=True)

    def execute(self, sql: str, parameters: Parameters = NONE, *, repeatable: bool = False) -> list[Row]:
        """Run one statement; outside `transaction()` it commits by itself.

        Raises:
            Unavailable: an outage. Without `repeatable` the statement may have been committed.
            psycopg2.Error: the statement failed (a constraint, an invalid value).
        """
        try:
            # Leaves time for a second attempt.
            return self._run(sql, parameters, share=0.5 if repeatable else 1)
        except psycopg2.Error as error:
            # Not inside a transaction: its earlier statements are lost with the connection.
            again = (
                repeatable
                and not self._in_transaction
                and (self._connection is None or error.pgcode in _SAME_CONNECTION)
            )
            if not again:
                _raise_named(error)
        try:
            return self._run(sql, parameters)
        except psycopg2.Error as error:
            _raise_named(error)

    @contextmanager
    def transaction(self) -> Iterator["Database"]:
        """Commit all statements of the block, or none of them.

        BEGIN detects a stale connection and is always safe to repeat. An outage inside the block or at COMMIT raises
        `Unavailable`; if the response to COMMIT is lost the outcome is unknown, so callers repeat the request with the
        same key.
        """
        try:
            self._begin()
            self._in_transaction = True
            yield self
            self.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._in_transaction = False

    def open(self) -> None:
        """Connect now if there is no connection yet, instead of with the next statement.

        Raises:
            psycopg2.Error: the server does not respond or rejects the login.
        """
        if self._connection is None:
            self._connection = _connect(self._dsn() if callable(self._dsn) else self._dsn, self._until(1))

    def close(self) -> None:
        """Close the connection; the next statement opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin(self) -> None:
        try:
            self.execute("BEGIN READ WRITE", repeatable=True)
        except psycopg2.errors.FeatureNotSupported as error:
            # Raised by a server in recovery: after a failover the writer is a different server.
            self.close()
            raise Unavailable from error

    def _run(self, sql: str, parameters: Parameters, share: float = 1) -> list[Row]:
        clean, until = False, self._until(share)
        if self._connection is not None and not self._in_transaction and _readable(self._connection):
            self.close()
        try:
            if self._connection is None:
                self._connection = _connect(self._dsn() if callable(self._dsn) else self._dsn, until)
            self._connection.wait_until = until
            with self._connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                names = [column.name for column in cursor.description or ()]
                rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []
                clean = self._in_transaction or len(cursor.query or b"") <= _PINNING_BYTES
            return rows
        except psycopg2.Error as error:
            connection = self._connection
            clean = connection is not None and not connection.closed and error.pgcode not in _ANOTHER_CONNECTION
            raise
        finally:
            # Also for a BaseException during the call: an unread response would be taken for the next statement's.
            if not clean:
                self.close()

    def _until(self, share: float) -> float | None:
        """The instant at which this share of the remaining time has passed."""
        if self._deadline is None:
            return None
        now = time.monotonic()
        return now + max(share * (self._deadline - now), _LEAST_SECONDS)

    def _roll_back(self) -> None:
        if self._connection is None:
            return
        try:
            self._run("ROLLBACK", NONE)
        except psycopg2.Error:
            self.close()


class SessionDatabase:
    """The same interface for a SQLAlchemy `Session`: each statement is committed when it returns."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def execute(self, sql: str, parameters: Parameters = NONE, *, repeatable: bool = False) -> list[Row]:
        try:
            result = self._session.connection().exec_driver_sql(sql, dict(parameters))
            rows = [dict(row) for row in result.mappings()] if result.returns_rows else []
            self._session.commit()
            return rows
        except BaseException:
            self._session.rollback()
            raise

    def read(self, model: type[T], key: object) -> T | None:
        """The object with this key as it is in the database now, or None; ends the session's transaction."""
        row: T | None = self._session.get(model, key, populate_existing=True)
        if row is not None:
            # Otherwise the commit would expire the object, and reading its first attribute would begin a transaction.
            self._session.expunge(row)
        self._session.commit()
        if row is not None:
            self._session.add(row)
        return row


@lru_cache(maxsize=1)
def connection() -> Database:
    """The one database of this execution environment."""
    return Database(lambda: settings.load().dsn)


def begin(context: Any) -> None:
    """Start an invocation: limit waiting to its remaining time, so that an unresponsive database causes a 503.

    Args:
        context: Lambda's context, or an object without a deadline.
    """
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    connection().wait_at_most(remaining() / 1000 - _ANSWER_SECONDS if remaining else None)


def elapsed_ms(start: float) -> float:
    """Milliseconds since `start`, a `time.perf_counter()`."""
    return (time.perf_counter() - start) * 1000


class _Connection(extensions.connection):
    """wait_until: the `time.monotonic()` at which waiting for the server ends; None: never."""

    def __init__(self, dsn: str, wait_until: float | None) -> None:
        self.wait_until = wait_until
        super().__init__(dsn)


def _connect(dsn: str, until: float | None) -> _Connection:
    soon = time.monotonic() + _CONNECT_SECONDS
    extensions.set_wait_callback(_wait)
    try:
        # TCP detects a lost peer early enough for a second attempt.
        connection: _Connection = psycopg2.connect(
            dsn,
            lambda dsn: _Connection(dsn, soon if until is None else min(soon, until)),
            keepalives_idle=10,
            keepalives_interval=3,
            keepalives_count=3,
            tcp_user_timeout=4000,
        )
    except psycopg2.ProgrammingError:
        # libpq cannot parse the URL and quotes it in its error, including the password.
        raise settings.SettingsError("DATABASE_URL is wrong: libpq cannot read it") from None
    except psycopg2.OperationalError as error:
        # With a wait callback, psycopg2 drops the part of libpq's message that names the server.
        asked = extensions.parse_dsn(dsn)
        raise psycopg2.OperationalError(f"{asked.get('host')}:{asked.get('port', 5432)}: {error}") from error
    connection.autocommit = True
    return connection


def _readable(connection: _Connection) -> bool:
    """Whether there is unexpected input: the server is about to end the session, or has ended it.

    `idle_session_timeout` and a server that shuts down send a message before closing; with TLS it cannot be told from
    other bytes. A statement that cannot be repeated must not be sent on a connection that is known to be dead.
    """
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _wait(connection: Any) -> None:
    """psycopg2's wait callback with a deadline: TCP does not detect a peer that is alive but does not respond."""
    until = getattr(connection, "wait_until", None)
    while (state := connection.poll()) != extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        if not poller.poll(None if until is None else max(0, until - time.monotonic()) * 1000):
            raise psycopg2.OperationalError("the server said nothing in time")


def _raise_named(error: psycopg2.Error) -> NoReturn:
    """Raise `Unavailable` for an outage, else the error itself."""
    code = error.pgcode
    if code is None:
        # No SQLSTATE: libpq itself failed (connect, socket). A ProgrammingError without one is our own mistake.
        outage = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    else:
        outage = code[:2] in _OUTAGE_CLASSES or code in _OUTAGES
    if outage:
        logs.outage(error)
        raise Unavailable from error
    raise error
