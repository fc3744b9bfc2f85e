"""Relays that recognize what passes through them, and traps that hold it at a chosen point of a sending process.

`Statements` stands in front of PostgreSQL, `Exchanges` in front of the fake FCM. Both call `hook(what, phase)` in the
thread of the connection. In phase `before`, the other side has not seen the message; in phase `after`, it has answered
but the sender has not seen the answer. The hook may block; if it returns False, both ends are closed.
"""

import contextlib
import re
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from psycopg2.extensions import parse_dsn

from tests.support.relay import Accepting, exactly

Hook = Callable[[str, str], bool]
HELD_SECONDS = 60

# Distinctive texts of a command's statements; the first match counts.
STATEMENTS = {
    "accept": "INSERT INTO fcm_dispatches",
    "claim": "chosen AS",
    "settle": "settled AS",
    "find": ", payload_hash FROM fcm_dispatches",
    "show": "FROM fcm_dispatches WHERE request_id",
}


class Trap:
    """A hook that holds the n-th passing of something."""

    def __init__(self, what: str, phase: str, nth: int = 1) -> None:
        self._wanted, self._left = (what, phase), nth
        self._lock = threading.Lock()
        self._sprung, self._released = threading.Event(), threading.Event()
        self._passes = True

    def __call__(self, what: str, phase: str) -> bool:
        with self._lock:
            self._left -= (what, phase) == self._wanted
            if self._left or self._sprung.is_set():
                return True
            self._sprung.set()
        assert self._released.wait(HELD_SECONDS), f"the test never released {self._wanted}"
        return self._passes

    def wait(self) -> None:
        assert self._sprung.wait(HELD_SECONDS), f"nothing came to {self._wanted}"

    def release(self, passes: bool = True) -> None:
        self._passes = passes
        self._released.set()


class _Relay(Accepting):
    """Uses one thread per connection, because PostgreSQL's simple queries and HTTP/1.1 both take turns."""

    def __init__(self, target: str | tuple[str, int]) -> None:
        self.hook: Hook = _all_passes
        self._target = target
        super().__init__()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
        with contextlib.suppress(OSError, EOFError), client, server:
            server.connect(self._target)
            self._converse(client, server)

    def _converse(self, client: socket.socket, server: socket.socket) -> None:
        raise NotImplementedError


class Statements(_Relay):
    """A relay in front of PostgreSQL; `what` is a name of STATEMENTS, or the statement itself."""

    def __init__(self, url: str) -> None:
        target = parse_dsn(url)
        host, port = target.get("host", "localhost"), target.get("port", "5432")
        super().__init__(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port)))
        user, password = target.get("user", "postgres"), target.get("password", "")
        self.url = (
            f"postgresql://{quote(user)}:{quote(password)}@127.0.0.1:{self.port}"
            f"/{target['dbname']}?sslmode=disable&gssencmode=disable"
        )

    def _converse(self, client: socket.socket, server: socket.socket) -> None:
        length = exactly(client, 4)
        server.sendall(length + exactly(client, struct.unpack("!i", length)[0] - 4))
        self._authenticate(client, server)
        while True:
            message = _message(client)
            if message[:1] != b"Q":
                server.sendall(message)
                continue
            what = _name(message[5:-1].decode())
            if not self.hook(what, "before"):
                return
            server.sendall(message)
            answer = _until_ready(server)
            if not self.hook(what, "after"):
                return
            client.sendall(answer)

    def _authenticate(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            message = _message(server)
            client.sendall(message)
            if message[:1] == b"Z":
                return
            if message[:1] == b"R" and struct.unpack("!i", message[5:9])[0] in (3, 5, 10, 11):
                server.sendall(_message(client))


class Exchanges(_Relay):
    """A relay in front of the fake; `what` is `oauth` or `post`. It also reproduces what the fake does on the socket.

    connections: how many connections were used for what.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        super().__init__((address.hostname, address.port))
        self.url = f"http://127.0.0.1:{self.port}"
        self.connections: Counter[str] = Counter()

    def _converse(self, client: socket.socket, server: socket.socket) -> None:
        used: set[str] = set()
        while True:
            request = _http_message(client)
            what = "oauth" if request.startswith(b"POST /token") else "post"
            self.connections[what] += what not in used
            used.add(what)
            if not self.hook(what, "before"):
                return
            server.sendall(request)
            try:
                answer, whole = _http_answer(client, server)
            except ConnectionResetError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                answer, whole = b"", False
            if not self.hook(what, "after"):
                return
            client.sendall(answer)
            if not whole:
                return


def _all_passes(_what: str, _phase: str) -> bool:
    return True


def _name(sql: str) -> str:
    return next((name for name, mark in STATEMENTS.items() if mark in sql), sql)


def _message(source: socket.socket) -> bytes:
    head = exactly(source, 5)
    return head + exactly(source, struct.unpack("!i", head[1:])[0] - 4)


def _until_ready(server: socket.socket) -> bytes:
    answer = b""
    while True:
        message = _message(server)
        answer += message
        if message[:1] == b"Z":
            return answer


def _http_message(source: socket.socket) -> bytes:
    data = b""
    while not _whole(data):
        part = source.recv(65_536)
        if not part:
            raise EOFError
        data += part
    return data


def _http_answer(client: socket.socket, server: socket.socket) -> tuple[bytes, bool]:
    """The server's response, and whether it is complete; it is incomplete when either side closes the connection."""
    data = b""
    while not _whole(data):
        ready, _, _ = select.select([client, server], [], [])
        part = b"" if client in ready else server.recv(65_536)
        if not part:
            return data, False
        data += part
    return data, True


def _whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)
