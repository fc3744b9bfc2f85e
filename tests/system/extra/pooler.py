"""Debian's pgbouncer in transaction mode, which resembles what stands between AWS Lambda and a database (RDS Proxy).

Like RDS Proxy, it refuses `options=` and gives each transaction whichever of its two server connections is free.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

POOL_SIZE = 2
# Debian's folder for it is not in every PATH.
SEARCHED = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
SETTINGS = """
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 400
logfile = {folder}/log
"""


@contextlib.contextmanager
def running(server: str) -> Iterator[str]:
    """The URL of a pooler in front of `server`; its clients choose the database by name."""
    binary = shutil.which("pgbouncer", path=SEARCHED)
    if binary is None:
        pytest.fail("pgbouncer is missing: apt-get install pgbouncer", pytrace=False)
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="nexmdm-pooler-") as name:
        folder = Path(name)
        # pgbouncer refuses to run as root; the user it switches to must be able to read this and write its log.
        folder.chmod(0o777)
        file = folder / "pgbouncer.ini"
        file.write_text(SETTINGS.format(server=_connection(server), port=port, pool_size=POOL_SIZE, folder=folder))
        user = ["-u", _user(server)] if os.geteuid() == 0 else []
        process = subprocess.Popen([binary, "-q", *user, str(file)], stdin=subprocess.DEVNULL)
        try:
            _wait(process, port, folder / "log")
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable&gssencmode=disable"
        finally:
            process.terminate()
            process.wait(10)


def _connection(server: str) -> str:
    target = parse_dsn(server)
    return " ".join(f"{key}={target[key]}" for key in ("host", "port", "user", "password") if target.get(key))


def _user(server: str) -> str:
    """The user who owns the folder of the embedded server's socket, which other users may not enter."""
    host = parse_dsn(server).get("host", "")
    return Path(host).owner() if host.startswith("/") and Path(host).owner() != "root" else "nobody"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"pgbouncer did not start: {log.read_text() if log.exists() else ''}", pytrace=False)
