"""Lambda's runtime API for one invocation: shows what a handler prints and what awslambdaric reports.

told = invoke(function, {"DATABASE_URL": url}, event)
told.log, told.reported     # the text of the log; the body of the response or the error
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from local.template import Function
from tests.support.api import ROOT

VERSION = "/2018-06-01/runtime"
REQUEST = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


class Told(NamedTuple):
    """kind: response or error. reported: its body, which the event's failure queue would receive too."""

    kind: str
    reported: str
    log: str


class _Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.server.given.is_set():  # there is only one invocation
            self.server.over.wait()
            return
        self.server.given.set()
        body = json.dumps(self.server.event).encode()
        deadline = str(int(time.time() * 1000) + 60_000)
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:ofTheTest"
        headers = {"Request-Id": REQUEST, "Deadline-Ms": deadline}
        self._answer(200, body, {f"Lambda-Runtime-{'Aws-' * (n == 'Request-Id')}{n}": v for n, v in headers.items()}
                     | {"Lambda-Runtime-Invoked-Function-Arn": arn})  # fmt: skip

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        trace = str(self.headers.get("Lambda-Runtime-Function-XRay-Error-Cause", ""))
        self.server.told = (self.path.rpartition("/")[2], body + trace)
        self._answer(202, b"{}", {})
        self.server.done.set()

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def __init__(self, event: Any) -> None:
        self.event, self.told = event, ("none", "")
        self.given, self.done, self.over = threading.Event(), threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), _Api)

    def handle_error(self, *_: Any) -> None:
        """Ignore that a runtime was stopped in the middle of a request."""


def invoke(function: Function, variables: dict[str, str], event: Any) -> Told:
    with _Server(event) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", function.handler],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(ROOT),
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": function.logical_id,
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
                "AWS_LAMBDA_LOG_GROUP_NAME": "/of/the/test",
                "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
                "AWS_REGION": "eu-west-1",
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # An environment that ended by itself, at its start or with a BaseException, sends nothing more.
        threading.Thread(target=lambda: (process.wait(), server.done.set()), daemon=True).start()
        server.done.wait(90)
        process.terminate()
        log = process.communicate()[0]
        server.over.set()
        server.shutdown()
        return Told(*server.told, log)
