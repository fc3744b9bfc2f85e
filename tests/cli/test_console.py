"""The console's server over real sockets: which requests it accepts, what it forwards, and what it never forwards."""

import asyncio
import http.client
import json
import signal
import socket

import httpx
import pytest
from botocore.credentials import Credentials
from nexmdm_cli import console as served
from nexmdm_cli import qr
from nexmdm_cli.console import forwarding
from nexmdm_cli.signing import Signed

from tests.cli.console_stack import KEYS, Console, console, echoing, exchanged
from tests.local.processes import eventually

SIGNED = Signed(Credentials(*KEYS.values()), "eu-west-1")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    with echoing(tmp_path_factory.mktemp("gateway")) as api, console(api) as started:
        yield started


@pytest.fixture
def page(own: Console):
    with own.client() as client:
        yield client


def raw(own: Console, method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> tuple[int, dict]:
    """Send a request that no client library would: the target unchanged, headers repeated or missing."""
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=20)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in (("Content-Length", str(len(body))), *headers):
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else {}
    finally:
        connection.close()


def host(own: Console) -> tuple[str, str]:
    return "Host", f"127.0.0.1:{own.port}"


def token(own: Console) -> tuple[str, str]:
    return "X-Console-Token", own.token


# --- which requests are accepted


def test_request_of_the_page_is_signed(page):
    event = page.get("/api/v1/things?b=2&a=1%20x").json()
    assert event["requestContext"]["authorizer"]["iam"]["accessKey"] == "AKIAOFTHETEST"
    assert (event["rawPath"], event["rawQueryString"]) == ("/v1/things", "b=2&a=1%20x")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_methods_bodies_and_keys_are_forwarded(page, method):
    headers = {"Content-Type": "application/json", "Idempotency-Key": "once"}
    event = page.request(method, "/api/v1/devices/a:b", content=b'{"a": 1}', headers=headers).json()
    assert event["requestContext"]["http"]["method"] == method
    assert event["body"] == '{"a": 1}'
    assert event["headers"]["idempotency-key"] == "once"
    assert event["headers"]["content-type"] == "application/json"


@pytest.mark.parametrize("given", [{}, {"X-Console-Token": ""}, {"X-Console-Token": "x" * 43}], ids=str)
@pytest.mark.parametrize("path", ["/api/v1/things", "/console/about", "/console/codes/agent", "/api/", "/console/none"])
def test_request_without_the_token_is_refused(own, given, path):
    answer = httpx.get(f"{own.url}{path}", headers=given)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


def test_each_start_has_its_own_token(own):
    with console("http://127.0.0.1:9") as other:
        assert other.token != own.token
        with own.client(**{"X-Console-Token": other.token}) as client:
            assert client.get("/console/about").status_code == 401


def test_file_is_private_and_leads_to_the_console(own):
    assert own.file.stat().st_mode & 0o777 == 0o600
    assert own.file.parent.stat().st_mode & 0o777 == 0o700
    assert f'url={own.url}/start#code={own.code_of_file()}"' in own.file.read_text()
    assert own.token not in own.file.read_text()


def test_code_is_exchanged_once_and_the_file_gets_the_next():
    with console("http://127.0.0.1:9") as other:
        codes = [other.code, other.code_of_file()]
        answers = [exchanged(other.url, code) for code in [*codes, *codes]]
        assert [answer.status_code for answer in answers] == [200, 200, 401, 401]
        assert answers[0].json() == answers[1].json() == {"token": other.token}
        assert other.code_of_file() not in codes
        assert exchanged(other.url, other.code_of_file()).status_code == 200
        for wrong in ("", "x" * 43, other.token):
            assert exchanged(other.url, wrong).status_code == 401


def test_file_is_removed_with_the_console():
    with console("http://127.0.0.1:9") as other:
        other.process.send_signal(signal.SIGINT)
        other.process.communicate(timeout=15)
        assert not other.file.parent.exists()


def test_other_page_redirects_to_the_start_and_exchanges_no_code(own):
    foreign = ("Sec-Fetch-Site", "cross-site")
    led = ("Sec-Fetch-Mode", "navigate")
    assert raw(own, "GET", "/start", host(own), foreign, led)[0] == 200
    assert raw(own, "GET", "/start", host(own), foreign, ("Sec-Fetch-Mode", "no-cors"))[0] == 403
    assert raw(own, "GET", "/start", host(own), foreign)[0] == 403
    code = ("X-Console-Code", own.code_of_file())
    for other in (foreign, ("Origin", "null"), ("Origin", "https://evil.example")):
        assert raw(own, "POST", "/console/token", host(own), code, other, led)[0] == 403
    assert code[1] == own.code_of_file()


def test_token_in_the_query_or_a_cookie_is_ignored(own):
    answer = httpx.get(f"{own.url}/console/about?token={own.token}", cookies={"token": own.token})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/", "/assets/app.js", "/api/v1/things", "/console/about"])
def test_request_for_another_host_returns_421(own, path):
    """A foreign host name that resolves to this address; the browser takes the console for that site's own server."""
    for name in ("evil.example", f"evil.example:{own.port}", "127.0.0.1", f"localhost:{own.port}", ""):
        assert raw(own, "GET", path, ("Host", name), token(own))[0] == 421, name
    # h11 itself rejects a missing and a repeated Host header.
    assert raw(own, "GET", path, host(own), ("Host", "evil.example"), token(own))[0] == 400
    assert raw(own, "GET", path, token(own))[0] == 400


@pytest.mark.parametrize("path", ["/", "/assets/app.js", "/api/v1/things", "/console/about"])
@pytest.mark.parametrize(
    "foreign",
    [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ],
    ids=str,
)
def test_request_of_a_foreign_page_is_refused(own, path, foreign):
    assert raw(own, "GET", path, host(own), token(own), foreign)[0] == 403
    ours = ("Origin", own.url) if foreign[0] == "Origin" else ("Sec-Fetch-Site", "same-origin")
    assert raw(own, "GET", path, host(own), token(own), ours)[0] == 200
    assert raw(own, "GET", path, host(own), token(own), ours, foreign)[0] == 403, "twice"


def test_typed_url_opens_the_page_and_not_the_api(own):
    typed = ("Sec-Fetch-Site", "none")
    assert raw(own, "GET", "/devices/x", host(own), typed)[0] == 200
    assert raw(own, "GET", "/api/v1/things", host(own), token(own), typed)[0] == 403


def test_no_other_origin_is_allowed(own):
    answer = httpx.options(f"{own.url}/api/v1/things", headers={"X-Console-Token": own.token})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/devices", "/assets/app.js", "/assets/none", "/api/v1/things", "/none"])
def test_every_response_has_the_isolating_headers(own, page, path):
    for answer in (page.get(path), httpx.get(f"{own.url}{path}"), page.get(path, headers={"Origin": "null"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "set-cookie" not in answer.headers
        assert "server" not in answer.headers


# --- what is forwarded


@pytest.mark.parametrize(
    "target",
    [
        "/api/", "/api/v1", "/api/v1/", "/api/v2/things", "/api/v10/things", "/api//v1/things", "/api/v1//things",
        "/api/v1/../secret", "/api/v1/./things", "/api/v1/%2e%2e/secret", "/api/v1/%2E%2e/secret", "/api/v1/a%2Fb",
        "/api/v1/a%5Cb", "/api/v1/a%00", "/api/v1/a%zz", "/api/v1/a\\b", "/api/v1/a|b", "/%61pi/v1/things",
        "/api/http://elsewhere.invalid/v1/things", "/api/@elsewhere.invalid/v1/things", "/api/v1/things?a=\\",
        "http://elsewhere.invalid/api/v1/things",
    ],
)  # fmt: skip
def test_only_paths_below_v1_are_forwarded(own, target):
    status, said = raw(own, "GET", target, host(own), token(own))
    assert status == 404
    assert "requestContext" not in said


def test_headers_of_the_browser_are_not_forwarded(own, page):
    given = {"Cookie": "session=1", "Authorization": "Bearer x", "X-Amz-Date": "1", "X-Forwarded-For": "1.2.3.4"}
    seen = page.get("/api/v1/things", headers={**given, "Origin": own.url, "Referer": f"{own.url}/"}).json()
    assert own.token not in json.dumps(seen)
    assert seen["headers"]["authorization"].startswith("AWS4-HMAC-SHA256 ")
    assert "1.2.3.4" not in json.dumps(seen)
    assert "cookies" not in seen
    added = {"x-console-token", "cookie", "origin", "referer", "sec-fetch-site"}
    assert not added & set(seen["headers"])


def test_only_allowed_response_headers_are_returned(page):
    answer = page.get("/api/v1/things")
    assert (answer.headers["retry-after"], answer.headers["idempotency-replayed"]) == ("7", "true")
    for name in ("set-cookie", "access-control-allow-origin", "x-of-the-api"):
        assert name not in answer.headers


def test_redirect_is_not_followed(page):
    answer = page.get("/api/v1/things?redirect=1")
    assert answer.status_code == 302
    assert "location" not in answer.headers


def test_body_over_the_limit_is_refused(page):
    answer = page.post("/api/v1/things", content=b"x" * (forwarding.LONGEST_BODY + 1))
    assert answer.status_code == 413
    assert str(forwarding.LONGEST_BODY) in answer.json()["detail"]


AGENT = {"server": "https://api.test", "token": "a-token", "alias": "Büro"}
OWNER = {"server": "https://api.test", "token": "a-token", "signer_fingerprint": "00ff" * 16}


def test_enrollment_codes_match_those_of_the_command(page):
    made = page.post("/console/codes/agent", json=AGENT).json()
    assert made["svg"].startswith("<?xml")
    assert made["adb"] == qr.adb_line(**AGENT, hmac_keys={})
    assert "<svg" in page.post("/console/codes/device-owner", json=OWNER).json()["svg"]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("agent", b""),
        ("agent", b"\xff"),
        ("agent", b"[1]"),
        ("agent", json.dumps(AGENT | {"alias": 1})),
        ("agent", json.dumps(AGENT | {"alias": "x" * 1000})),
        ("device-owner", json.dumps(AGENT)),
        ("device-owner", json.dumps(OWNER | {"signer_fingerprint": "no hex"})),
    ],
)
def test_enrollment_code_with_an_invalid_kind_is_refused(page, kind, told):
    assert page.post(f"/console/codes/{kind}", content=told).status_code == 422


def test_browser_is_opened_with_the_file(tmp_path, monkeypatch):
    """As on every Unix, BROWSER names the browser."""
    shown = tmp_path / "shown"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > "{shown}.part" && mv "{shown}.part" "{shown}"\n')
    browser.chmod(0o700)
    monkeypatch.setenv("BROWSER", str(browser))
    with console("http://127.0.0.1:9", open_browser=True) as other:
        eventually(shown.exists)
        assert shown.read_text() == other.file.as_uri(), "the process list shows more than the file"


def test_ctrl_c_ends_the_console_quietly(own):
    with console("http://127.0.0.1:9") as other:
        other.process.send_signal(signal.SIGINT)
        out, err = other.process.communicate(timeout=15)
        assert (other.process.returncode, out, err) == (0, "", "")


# --- when the API does not respond


def asked(api_url: str, auth: httpx.Auth = SIGNED) -> httpx.Response:
    """The response that a page gets from a console in this process."""

    async def ask() -> httpx.Response:
        async with served.running(api_url, auth) as address:
            url, _, code = address.url.partition("/start#code=")
            async with httpx.AsyncClient() as client:
                given = await client.post(f"{url}/console/token", headers={"X-Console-Code": code})
                return await client.get(f"{url}/api/v1/things", headers={"X-Console-Token": given.json()["token"]})

    return asyncio.run(ask())


def test_unreachable_api_is_a_problem_document():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        answer = asked(url)
    assert answer.status_code == 502
    assert url in answer.json()["detail"]


def test_silent_api_is_a_problem_document(monkeypatch):
    monkeypatch.setattr(forwarding, "TIMEOUT", httpx.Timeout(0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = asked(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"


def test_missing_credentials_are_a_problem_document():
    answer = asked("http://127.0.0.1:9", Signed(None, "eu-west-1"))
    assert answer.status_code == 502
    assert "credentials" in answer.json()["detail"]


# --- where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", ""])
def test_console_listens_only_on_loopback(host):
    with pytest.raises(ValueError, match="loopback"):
        served.serve("http://127.0.0.1:9", SIGNED, host=host, open_browser=False)


def test_taken_port_is_reported(own):
    with pytest.raises(OSError, match=f"127.0.0.1:{own.port}"):
        served.serve("http://127.0.0.1:9", SIGNED, port=own.port, open_browser=False)


def test_endless_request_does_not_delay_the_shutdown():
    async def end() -> None:
        async with served.running("http://127.0.0.1:9", SIGNED) as address:
            port = int(address.url.partition("/start#")[0].rpartition(":")[2])
            _, writing = await asyncio.open_connection("127.0.0.1", port)
            writing.write(b"POST /console/codes/agent HTTP/1.1\r\n")
            await writing.drain()
        writing.close()

    asyncio.run(asyncio.wait_for(end(), 60))
