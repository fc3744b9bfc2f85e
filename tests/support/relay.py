"""A relay between libpq and PostgreSQL that records the client's messages and can break connections.

with relay(url) as line:
    ... connect to line.url ...
    line.sent          # types of the messages so far, such as ["Q", "Q", "X"]
    line.statements    # the texts of the messages of type Q
    line.startups      # the first message of each connection
    line.lose_answers()   # from now on requests arrive, but the connection is cut instead of the response
    line.cut()         # cut every connection
    line.fall_silent() # present connections stay open but relay nothing more; with `new`, future ones too
    line.lead_to(url)  # send future connections to another server
    line.delay, line.piece   # responses arrive in pieces of `piece` bytes, each after `delay` seconds
    line.close()       # and refuse new connections
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

from psycopg2.extensions import parse_dsn


class Accepting:
    """A listener on this machine that serves each connection in its own thread."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError


class Relay:
    def __init__(self, url: str, port: int = 0) -> None:
        target = parse_dsn(url)
        self.lead_to(url)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        user, password = target.get("user", "postgres"), target.get("password", "")
        self.url = (
            f"postgresql://{quote(user)}:{quote(password)}@127.0.0.1:{self.port}"
            f"/{target['dbname']}?sslmode=disable&gssencmode=disable"
        )
        self.sent: list[str] = []
        self.statements: list[str] = []
        self.startups: list[bytes] = []
        self.connections = 0
        self._lines: list[tuple[socket.socket, socket.socket]] = []
        self._losing = False
        self._silent: set[socket.socket] = set()
        self._all_silent = False
        self.delay, self.piece = 0.0, 65536
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, url: str) -> None:
        """Send future connections to another server."""
        target = parse_dsn(url)
        host, port = target.get("host", "localhost"), target.get("port", "5432")
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))

    def lose_answers(self) -> None:
        self._losing = True

    def cut(self) -> None:
        self._losing = False  # before the clients notice and connect again
        lines, self._lines = self._lines, []
        for line in lines:
            for end in line:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def fall_silent(self, new: bool = False) -> None:
        self._silent |= {client for client, _ in self._lines}
        self._all_silent = new

    def speak_again(self) -> None:
        """End the silence for future connections."""
        self._all_silent = False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
                try:
                    server.connect(self._target)
                except OSError:
                    client.close()  # no server is set at the moment
                    continue
                self.connections += 1
                self._lines.append((client, server))
                if self._all_silent:
                    self._silent.add(client)
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._return, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Forward message by message. The first has no type byte; each later one has one before its length."""
        with contextlib.suppress(OSError, EOFError), client, server:
            message = exactly(client, 4)
            startup = exactly(client, struct.unpack("!i", message)[0] - 4)
            self.startups.append(startup)
            server.sendall(message + startup)
            while True:
                head = exactly(client, 5)
                rest = exactly(client, struct.unpack("!i", head[1:])[0] - 4)
                self.sent.append(head[:1].decode())
                if head[:1] == b"Q":
                    self.statements.append(rest[:-1].decode())
                if client not in self._silent:
                    server.sendall(head + rest)

    def _return(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while answer := server.recv(65536):
                if self._losing:
                    self.cut()
                    return
                for at in range(0, len(answer), self.piece):
                    time.sleep(self.delay)
                    if client not in self._silent:
                        client.sendall(answer[at : at + self.piece])
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def exactly(source: socket.socket, count: int) -> bytes:
    """Read exactly `count` bytes, or raise EOFError."""
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


@contextlib.contextmanager
def relay(url: str, port: int = 0) -> Iterator[Relay]:
    """Relay connections to `url`. `port` is the port to listen on; 0 picks a free one."""
    line = Relay(url, port)
    try:
        yield line
    finally:
        line.close()
