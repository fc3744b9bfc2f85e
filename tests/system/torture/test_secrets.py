"""S1 from outside: canaries are put into every header and body of every route, into FCM's responses and into settings.
Then the logs of functions and gateway, all responses and all database columns are searched for them.

Names are not secret: a response may quote an alias, a request_id or a word that is not allowed.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from nexmdm.runtime.database import Database

from local import template
from local.fcm.account import service_account
from tests.support.api import Device
from tests.support.claims import Claim
from tests.support.commands import enrolled
from tests.system.torture.stack import KEYS, Stack, standing

CANARY = "canary"
# Columns that may contain them: what a sender needs again, and hashes that cannot be reversed.
NAMED = {("fcm_dispatches", "secrets"), ("devices", "fcm_token")}
BREAK = ("ALTER TABLE devices RENAME COLUMN fcm_token TO other", "DROP TABLE enrollment_tokens CASCADE")
HEADERS = ("authorization", "x-device-token", "x-admin-key", "x-admin", "cookie", "user-agent", "x-any-other")
BODIES: list[Any] = [
    {"fcm_token": "{c}", "alias": "lobby"},
    {"fcm_token": ["{c}"], "battery": {"pct": "{c}"}, "timestamp_utc": "{c}"},
    {"action": "wifi_connect", "params": {"ssid": "s", "password": ["{c}"]}, "request_id": "bad"},
    {"action": "remote_control", "params": {"command": "tap", "text": "{c}"}, "request_id": "bad"},
    {"installation_id": "{c}", "download_progress": "{c}", "uses_allowed": "{c}", "file_size": "{c}"},
    '{"fcm_token": "{c}", "fcm_token": "{c}"}',
    '{"fcm_token": "{c}',
    "{c}",
    '["{c}\\u0000"]',
]


class Canaries:
    """Hands out canaries, each of which names the place it was put into."""

    def __init__(self) -> None:
        self.out: list[str] = []

    def one(self, where: str) -> str:
        self.out.append(f"{CANARY}-{len(self.out)}-{re.sub('[^a-z0-9]+', '-', where.lower())}")
        return self.out[-1]

    def headers(self, where: str, but: str = "") -> dict[str, str]:
        headers = {name: self.one(f"{where} {name}") for name in HEADERS if name != but}
        if "authorization" in headers:
            headers["authorization"] = f"Bearer {headers['authorization']}"
        return headers


@contextmanager
def quoting_fcm() -> Iterator[str]:
    """The URL of an FCM that refuses everything and quotes the whole message in its response."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            granted = {"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"}
            error = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": f"Invalid value: {body}"}}
            grants = self.path == "/token"
            content = json.dumps(granted if grants else error).encode()
            self.send_response(200 if grants else 400)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def call_every_route(stack: Stack, canaries: Canaries) -> list[httpx.Response]:
    """Call every route with a canary in every header, in the query and in each of the bodies."""
    answers = []
    with stack.client() as unsigned, stack.operator() as operator:
        for route in template.load().routes:
            method, path = route.key.split(" ", 1)
            path = re.sub(r"\{\w+\}", "1", path)
            who, but = (operator, "authorization") if route.authorizer == "AWS_IAM" else (unsigned, "")
            for body in BODIES if method in ("POST", "PUT", "PATCH") else [None]:
                text = body if isinstance(body, str) or body is None else json.dumps(body)
                content = text and text.replace("{c}", canaries.one(f"{route.key} body"))
                where = f"{path}?token={canaries.one(f'{route.key} query')}"
                headers = canaries.headers(route.key, but)
                answers.append(who.request(method, where, content=content, headers=headers))
    return answers


def send_secrets(stack: Stack, device_id: str, canaries: Canaries) -> list[httpx.Response]:
    """Send single and bulk commands with a secret FCM token; FCM quotes all of it."""
    asked = [
        ("wifi_connect", {"ssid": "kiosks", "password": canaries.one("password")}),
        ("wifi_connect", {"ssid": "kiosks", "password": canaries.one("quoted")[:40] + '"\\é'}),
        ("remote_control", {"command": "text", "text": canaries.one("text")}),
        ("remote_control", {"command": "set_clipboard", "text": canaries.one("clipboard")}),
        ("ping", {}),  # nothing secret in it but the FCM token
    ]
    answers = []
    with stack.operator() as operator:
        for n, (action, params) in enumerate(asked):
            one = {"action": action, "params": params, "request_id": f"one-{n}"}
            many = {"action": action, "params": params, "request_id": f"many-{n}", "device_ids": [device_id]}
            answers += [operator.post(f"/v1/devices/{device_id}/commands", json=one)] * 2
            answers += [operator.post("/v1/commands", json=many)]
            answers += [operator.get(f"/v1/commands/one-{n}"), operator.get(f"/v1/commands?batch=many-{n}")]
        answers += [operator.get(path) for path in ("/v1/devices", f"/v1/devices/{device_id}", "/v1/enroll-tokens")]
    assert all(answer.status_code in (200, 202) for answer in answers), [answer.text for answer in answers]
    assert {answer.json()["state"] for answer in answers if "state" in answer.json()} == {"failed"}
    return answers


def columns_with(db: Database, word: str) -> set[tuple[str, str]]:
    """(table, column) of every column of any type whose text contains the word."""
    found = set()
    for column in db.execute(_COLUMNS):
        table, name = column["table"], column["name"]
        if db.execute(f'SELECT 1 AS n FROM {table} WHERE "{name}"::text LIKE %(word)s LIMIT 1', {"word": f"%{word}%"}):
            found.add((table, name))
    return found


_COLUMNS = """
SELECT c.relname AS table, a.attname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped
"""


def found_in(text: str) -> set[str]:
    return set(re.findall(rf"{CANARY}-[0-9a-z-]+", text))


@pytest.fixture
def phone(url: str, db: Database) -> Device:
    return Device(*enrolled("lobby", f"{CANARY}-0-address"))


def test_no_canary_is_revealed(url: str, db: Database, phone: Device, claim: Claim):
    canaries = Canaries()
    canaries.one("address")
    with quoting_fcm() as fcm, stack_of(url, canaries, fcm) as stack:
        answers = send_secrets(stack, phone.id, canaries) + call_every_route(stack, canaries)
        seen = columns_with(db, CANARY)
        for statement in BREAK:
            db.execute(statement)
            answers += call_every_route(stack, canaries)
        told = stack.log.read_text() + stack.errors.read_text()
    assert {200, 202, 400, 401, 404, 422, 500} <= {answer.status_code for answer in answers}
    assert "db_operation" in told
    assert "sqlstate" in told
    assert found_in(told) == set()
    for answer in answers:
        assert found_in(answer.text + str(answer.headers)) == set(), (answer.request.url.path, answer.text)
    assert seen <= NAMED, "a column that is displayed contains a secret"
    for secret in (KEYS.secret, phone.token):
        assert secret not in told
    claim("no canary in a log, response or column", f"canaries in {len(answers)} calls", len(canaries.out))


@contextmanager
def stack_of(url: str, canaries: Canaries, fcm: str) -> Iterator[Stack]:
    """A stack whose settings contain canaries too: the HMAC key and the database's password."""
    account = json.loads(service_account(fcm)) | {"private_key_id": canaries.one("private key id")}
    variables = {
        "COMMAND_HMAC_KEY": canaries.one("hmac key"),
        "FCM_ENDPOINT": fcm,
        "FCM_SERVICE_ACCOUNT": json.dumps(account),
    }
    with standing(url.replace("postgres@", f"postgres:{canaries.one('database password')}@"), 1, **variables) as stack:
        yield stack


def test_search_finds_a_canary(db: Database, phone: Device):
    assert columns_with(db, CANARY) == {("devices", "fcm_token")}
    db.execute("UPDATE devices SET model = 'canary-1-x'")
    assert columns_with(db, CANARY) == {("devices", "fcm_token"), ("devices", "model")}
    assert found_in('{"text": "canary-12-in-a-log\\n"}') == {"canary-12-in-a-log"}
