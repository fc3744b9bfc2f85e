"""Which requests are repeated, how often, and with which key, against a server with preset responses."""

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
    """Send the responses in `server.answers`, (status, headers), in order, and the last one from then on."""

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
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def api(told) -> Iterator[Api]:
    auth = Signed(Credentials("AKIAOFTHETEST", "secret"), "eu-west-1")
    api = Api(Stack(f"http://127.0.0.1:{told.server_port}", auth))
    yield api
    api.close()


@pytest.mark.parametrize("status", [409, 429, 503])
def test_response_with_retry_after_is_retried_with_the_same_key(told, api, status):
    told.answers = [(status, AT_ONCE), (status, AT_ONCE), (200, {})]
    assert api.call("POST", "/v1/commands", {}, key="the-key") == {"detail": "it is 200"}
    assert told.keys == ["the-key"] * 3


def test_last_response_is_reported_after_all_tries(told, api):
    told.answers = [(503, AT_ONCE)]
    with pytest.raises(Failure, match="it is 503") as failed:
        api.call("POST", "/v1/commands", {}, key="the-key")
    assert failed.value.code == Code.UNAVAILABLE
    assert told.keys == ["the-key"] * TRIES


@pytest.mark.parametrize(
    ("status", "code"), [(400, 4), (401, 5), (403, 5), (404, 3), (409, 4), (413, 4), (422, 4), (500, 6)]
)
def test_permanent_error_is_not_retried(told, api, status, code):
    told.answers = [(status, {})]
    with pytest.raises(Failure, match=f"it is {status}") as failed:
        api.call("POST", "/v1/commands", {}, key="the-key")
    assert (failed.value.code, len(told.keys)) == (code, 1)


def test_unrepeatable_request_is_not_retried_when_its_outcome_is_unknown(told, api):
    told.answers = [(502, {})]
    with pytest.raises(Failure):
        api.call("POST", "/v1/enroll-tokens", {}, repeatable=False)
    assert len(told.keys) == 1


def test_tokens_are_not_created_twice_after_a_lost_response(run, data, stack):
    with relay(stack.url) as line:
        lost = run("enroll", "create", "lost-token", "--url", line.url, code=6)
    assert "It is not known whether the request was executed" in lost.stderr
    assert [t["alias"] for t in data("enroll", "list", "--limit", "500")].count("lost-token") == 1
