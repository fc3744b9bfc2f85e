"""A webhook on a socket: it keeps what is posted, and answers as it is told to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

SECRET_PATH = "/services/T000/B000/secret-of-the-webhook"


class Webhook:
    """answer: a status, or None to say nothing until the end of the test."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.asked: list[str] = []
        self.answer: int | None = 200
        self.over = threading.Event()
        self.url = ""


@contextmanager
def listening() -> Iterator[Webhook]:
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            webhook.asked.append(f"{self.command} {self.path}")
            webhook.posted.append(msgspec.json.decode(body))
            if webhook.answer is None:
                webhook.over.wait()
                self.close_connection = True
                return
            self.send_response(webhook.answer)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            webhook.asked.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    webhook.url = f"http://127.0.0.1:{server.server_port}{SECRET_PATH}"
    try:
        yield webhook
    finally:
        webhook.over.set()
        server.shutdown()
        server.server_close()
