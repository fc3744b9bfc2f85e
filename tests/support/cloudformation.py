"""The CloudFormation side of a custom resource: a server that receives what is PUT to the ResponseURL."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer


class CloudFormation(HTTPServer):
    """Store the responses that are PUT to the ResponseURL, after refusing the first `refusals` of them."""

    def __init__(self) -> None:
        self.answers: list[dict] = []
        self.types: list[str | None] = []
        self.refusals = 0
        super().__init__(("127.0.0.1", 0), Taker)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/answer?signature=s3cr3t"


class Taker(BaseHTTPRequestHandler):
    server: CloudFormation

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_error(503)
            return
        self.server.types.append(self.headers["content-type"])
        self.server.answers.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[CloudFormation]:
    with CloudFormation() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
