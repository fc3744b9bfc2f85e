"""A relay in front of the gateway that loses responses: the request arrives, but the sender gets no response."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.support.relay import Accepting


class Relay(Accepting):
    """`lose` is the number of next POSTs that get no response. `requests` are their methods and paths."""

    def __init__(self, url: str, lose: int) -> None:
        target = urlsplit(url)
        self.posts, self._lose = 0, lose
        self.requests: list[str] = []
        self._target = (target.hostname, target.port)
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def _serve(self, client: socket.socket) -> None:
        """Serve one connection. An HTTP/1.1 client waits for a response before its next request."""
        with contextlib.suppress(OSError), client, socket.create_connection(self._target) as gateway:
            threading.Thread(target=self._forward, args=(client, gateway), daemon=True).start()
            while answer := gateway.recv(65536):
                if self._lose_this:
                    self._lose -= 1
                    client.shutdown(socket.SHUT_RDWR)  # close() alone would wait for the recv of the other thread
                    return
                client.sendall(answer)

    def _forward(self, client: socket.socket, gateway: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while request := client.recv(65536):
                if begun := re.match(rb"([A-Z]+) (/[^ ?]*)", request):
                    self.requests.append((begun[1] + begun[2]).decode())
                if request.startswith(b"POST "):
                    self.posts += 1
                    self._lose_this = self._lose > 0
                gateway.sendall(request)

    _lose_this = False


@contextlib.contextmanager
def relay(url: str, lose: int = 1) -> Iterator[Relay]:
    line = Relay(url, lose)
    try:
        yield line
    finally:
        line.close()
