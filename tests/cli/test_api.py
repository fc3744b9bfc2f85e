"""What is tried again, how often, and with which key: against a server that answers as it is told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.credentials import Credentials
from nexmdm_cli.api import TRIES, Api
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.signing import Signed
from nexmdm_cli.stack import Stack

from tests.cli.relay import relay

AT_ONCE = {"Retry-After": "0"}


class Told(BaseHTTPRequestHandler):
    """Answers in the order of `server.answers`, (status, headers), the last one for ever."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.keys.append(self.headers.get("Idempotency-Key"))
        answers = self.server.answers
        status, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        body = json.dumps({"detail": f"it is {status}"}).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def told() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        server.keys, server.answers = [], []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def api(told) -> Iterator[Api]:
    auth = Signed(Credentials("AKIAOFTHETEST", "secret"), "eu-west-1")
    api = Api(Stack(f"http://127.0.0.1:{told.server_port}", auth))
    yield api
    api.close()


@pytest.mark.parametrize("status", [409, 429, 503])
def test_what_says_when_to_come_back_is_asked_again_with_the_same_key(told, api, status):
    told.answers = [(status, AT_ONCE), (status, AT_ONCE), (200, {})]
    assert api.call("POST", "/v1/commands", {}, key="the-key") == {"detail": "it is 200"}
    assert told.keys == ["the-key"] * 3


def test_it_ends_with_what_was_answered_last(told, api):
    told.answers = [(503, AT_ONCE)]
    with pytest.raises(Failure, match="it is 503") as failed:
        api.call("POST", "/v1/commands", {}, key="the-key")
    assert failed.value.code == Code.UNAVAILABLE
    assert told.keys == ["the-key"] * TRIES


@pytest.mark.parametrize(
    ("status", "code"), [(400, 4), (401, 5), (403, 5), (404, 3), (409, 4), (413, 4), (422, 4), (500, 6)]
)
def test_what_stays_so_is_asked_once(told, api, status, code):
    told.answers = [(status, {})]
    with pytest.raises(Failure, match=f"it is {status}") as failed:
        api.call("POST", "/v1/commands", {}, key="the-key")
    assert (failed.value.code, len(told.keys)) == (code, 1)


def test_what_would_be_done_twice_is_not_repeated_when_nobody_knows(told, api):
    told.answers = [(502, {})]
    with pytest.raises(Failure):
        api.call("POST", "/v1/enroll-tokens", {}, repeatable=False)
    assert len(told.keys) == 1


def test_tokens_whose_answer_was_lost_are_not_made_twice(run, data, stack):
    with relay(stack.url) as line:
        lost = run("enroll", "create", "lost-token", "--url", line.url, code=6)
    assert "It is not known whether the request was executed" in lost.stderr
    assert [t["alias"] for t in data("enroll", "list", "--limit", "500")].count("lost-token") == 1
