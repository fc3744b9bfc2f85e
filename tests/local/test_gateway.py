"""The gateway over real sockets, in front of a handler that returns its event."""

import base64
import contextlib
import http.client
import os
import signal
import textwrap
import threading
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.local.processes import ended, listening

KEYS = Credentials("AKIAOFTHETEST", "a/secret+of=the+test")

HANDLER = """
    import json, os, time

    def handler(event, context):
        query = event.get("queryStringParameters", {})
        match query.get("do"):
            case "raise": raise ValueError("no")
            case "exit": os._exit(1)
            case "sleep": time.sleep(float(query["seconds"]))
            case "answer": return ANSWERS[query["with"]]
        return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(event)}

    ANSWERS = {
        "full": {
            "statusCode": 201,
            "headers": {"X-One": "1", "Retry-After": 5, "content-length": "99"},
            "cookies": ["a=1; Secure", "b=2"],
            "body": "aGk=",
            "isBase64Encoded": True,
        },
        "bare": {"ok": True},
        "text": "plain",
        "nothing": None,
        "no type": {"statusCode": 200, "body": "x"},
        "redirect": {"statusCode": 302, "headers": {"location": "https://elsewhere/"}},
        "not modified": {"statusCode": 304, "body": "ignored"},
        "status as text": {"statusCode": "202"},
        "bad status": {"statusCode": "many"},
        "status out of range": {"statusCode": 99},
        "body no text": {"statusCode": 200, "body": {"a": 1}},
        "bad base64": {"statusCode": 200, "body": "%%%", "isBase64Encoded": True},
        "header with a line": {"statusCode": 200, "headers": {"x": "a\\r\\nb: c"}},
        "header no text": {"statusCode": 200, "headers": {"x": {"y": 1}}},
        "headers no map": {"statusCode": 200, "headers": ["x"]},
    }
"""

TEMPLATE = """
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties: {Auth: {EnableIamAuthorizer: true, DefaultAuthorizer: AWS_IAM}}
  EchoFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: of.the.echo.handler
      Timeout: 20
      Events:
        A: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: POST, Path: /open, Auth: {Authorizer: NONE}}}
        B: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: /open, Auth: {Authorizer: NONE}}}
        C: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: "/open/{name}", Auth: {Authorizer: NONE}}}
        D: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: "/open/fixed", Auth: {Authorizer: NONE}}}
        E: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: "/signed/{name}"}}
        F: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: POST, Path: "/signed/{name}"}}
"""

RUN = """
    import asyncio, pathlib, sys
    from dataclasses import replace
    from local import template
    from local.gateway import application as gateway
    from local.gateway import server
    from nexmdm_cli.listening import listen

    declared = template.load(pathlib.Path("template.yaml"))
    routes = [replace(r, function=replace(r.function, handler="echo_of_the_test.handler")) for r in declared.routes]
    declared = replace(declared, routes=routes)

    async def main():
        application = gateway.Gateway(declared, gateway.key_pair(), limit=3, integration_seconds=2)
        await server.serve(application, listen("127.0.0.1", 0, "choose another"))

    asyncio.run(main())
"""


@contextlib.contextmanager
def a_gateway(folder, **environment):
    (folder / "template.yaml").write_text(TEMPLATE)
    (folder / "echo_of_the_test.py").write_text(textwrap.dedent(HANDLER))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    with listening("-c", textwrap.dedent(RUN), cwd=folder, env=environment) as (process, url):
        yield process, url


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    environment = {"AWS_ACCESS_KEY_ID": KEYS.access_key, "AWS_SECRET_ACCESS_KEY": KEYS.secret_key}
    with a_gateway(tmp_path_factory.mktemp("gateway"), **environment) as (process, url):
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture(scope="module")
def api(url):
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


def test_event_has_format_2(api):
    headers = [("X-Mixed-Case", "a"), ("x-mixed-case", "b"), ("Cookie", "k=v; l=w"), ("User-Agent", "agent/1")]
    event = api.get("/open/a%20b?x=1&x=2&y=%C3%A4+b&z", headers=headers).json()
    assert event["version"] == "2.0"
    assert event["routeKey"] == "GET /open/{name}"
    assert event["rawPath"] == "/open/a b"
    assert event["rawQueryString"] == "x=1&x=2&y=%C3%A4+b&z"
    assert event["queryStringParameters"] == {"x": "1,2", "y": "ä b", "z": ""}
    assert event["pathParameters"] == {"name": "a b"}
    assert event["headers"]["x-mixed-case"] == "a,b"
    assert "cookie" not in event["headers"]
    assert event["cookies"] == ["k=v", "l=w"]
    assert event["isBase64Encoded"] is False
    context = event["requestContext"]
    assert context["http"] == {
        "method": "GET",
        "path": "/open/a b",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "agent/1",
    }
    assert context["routeKey"] == event["routeKey"]
    assert context["stage"] == "$default"
    assert context["domainName"] == "127.0.0.1"
    assert {"accountId", "apiId", "requestId", "time", "timeEpoch"} <= context.keys()
    assert "authorizer" not in context


def test_members_without_a_value_are_absent(api):
    event = api.get("/open").json()
    assert not {"body", "cookies", "queryStringParameters", "pathParameters"} & event.keys()


@pytest.mark.parametrize(
    ("content_type", "content", "is_base64"),
    [
        ("application/json", b'{"a": "\xc3\xa4"}', False),
        ("Application/JSON; charset=utf-8", b"{}", False),
        ("text/plain", b"hello", False),
        ("application/json", b"\xff\xfe", True),
        ("application/octet-stream", b"hello", True),
        ("application/x-www-form-urlencoded", b"a=1", True),
        (None, b"hello", True),
    ],
)
def test_bodies_are_text_or_base64(api, content_type, content, is_base64):
    event = api.post("/open", content=content, headers={"content-type": content_type} if content_type else {}).json()
    assert event["isBase64Encoded"] is is_base64
    assert (base64.b64decode(event["body"]) if is_base64 else event["body"].encode()) == content


def test_literal_segment_takes_precedence_over_a_variable(api):
    assert api.get("/open/fixed").json()["routeKey"] == "GET /open/fixed"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("GET", "/"), ("GET", "/opened"), ("GET", "/open/"), ("GET", "/open/a/b"), ("GET", "/open/a%2Fb")],
        *[("GET", "//open"), ("DELETE", "/open"), ("HEAD", "/open"), ("OPTIONS", "/open")],
    ],
)
def test_other_routes_return_404(api, method, path):
    answer = api.request(method, path)
    assert answer.status_code == 404
    if method != "HEAD":
        assert answer.content == b'{"message":"Not Found"}'


def test_function_results_become_responses(api):
    full = answer(api, "full")
    assert (full.status_code, full.content) == (201, b"hi")
    assert (full.headers["x-one"], full.headers["retry-after"]) == ("1", "5")
    assert full.headers.get_list("set-cookie") == ["a=1; Secure", "b=2"]
    bare = answer(api, "bare")
    assert (bare.status_code, bare.json(), bare.headers["content-type"]) == (200, {"ok": True}, "application/json")
    assert answer(api, "text").text == "plain"
    assert answer(api, "nothing").text == "null"
    assert answer(api, "no type").headers["content-type"] == "text/plain;charset=UTF-8"
    assert answer(api, "redirect").headers["location"] == "https://elsewhere/"
    assert answer(api, "status as text").status_code == 202
    assert (answer(api, "not modified").status_code, answer(api, "not modified").content) == (304, b"")


MALFORMED = ["bad status", "status out of range", "body no text", "bad base64", "header with a line", "header no text"]


@pytest.mark.parametrize("name", [*MALFORMED, "headers no map"])
def test_malformed_result_returns_500(api, name):
    assert_error(answer(api, name), 500, "Internal Server Error")


@pytest.mark.parametrize("how", ["raise", "exit"])
def test_failing_function_returns_500_and_the_next_call_works(api, how):
    assert_error(api.get("/open", params={"do": how}), 500, "Internal Server Error")
    assert api.get("/open").status_code == 200


def test_integration_timeout_returns_503(api):
    assert_error(api.get("/open", params={"do": "sleep", "seconds": "3"}), 503, "Service Unavailable")


def test_body_is_accepted_at_the_limit_and_refused_above(api):
    limit = 10 * 1024 * 1024
    event = api.post("/open", content=b"x" * limit, headers={"content-type": "text/plain"}).json()
    assert len(event["body"]) == limit
    assert_error(api.post("/open", content=b"x" * (limit + 1)), 413, "Request Entity Too Large")
    assert_error(api.post("/open", content=iter([b"x" * limit, b"x"])), 413, "Request Entity Too Large")


def test_concurrent_calls_are_served(api):
    answers = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append((n, api.get(f"/open/{n}").json()["pathParameters"]["name"])))
        for n in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(n, str(n)) for n in range(30)]


# --- operator routes


def test_signed_call_names_its_caller(url):
    event = signed(url, "GET", "/signed/a%20b?z=2&a=1%2F&a=0").json()
    iam = event["requestContext"]["authorizer"]["iam"]
    assert iam["accessKey"] == KEYS.access_key
    assert iam["userArn"].startswith("arn:aws:iam::")
    assert {"accountId", "callerId", "userId"} <= iam.keys()
    assert signed(url, "POST", "/signed/b", b'{"c": 1}').status_code == 200


def wrong_secret(request):
    SigV4Auth(Credentials(KEYS.access_key, "another"), "execute-api", "eu-west-1").add_auth(request)


def wrong_key(request):
    SigV4Auth(Credentials("AKIAANOTHER", KEYS.secret_key), "execute-api", "eu-west-1").add_auth(request)


def wrong_service(request):
    SigV4Auth(KEYS, "s3", "eu-west-1").add_auth(request)


def body_changed(request):
    sign(request)
    request.data = b'{"c": 2}'


def query_changed(request):
    sign(request)
    request.url += "?more=1"


def header_changed(request):
    request.headers["x-signed"] = "a"
    sign(request)
    request.headers.replace_header("x-signed", "b")


def hash_of_another_body(request):
    request.headers["X-Amz-Content-SHA256"] = "0" * 64
    sign(request)


def unsigned_payload(request):
    request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    sign(request)


def unknown_token(request):
    SigV4Auth(Credentials(KEYS.access_key, KEYS.secret_key, "token"), "execute-api", "eu-west-1").add_auth(request)


def authorization(text):
    def set_it(request):
        request.headers["Authorization"] = text

    return set_it


UNSIGNED = [lambda request: None, authorization("Bearer x"), authorization("AWS4-HMAC-SHA256 nonsense")]
TAMPERED = [wrong_secret, wrong_key, wrong_service, body_changed, query_changed, header_changed, hash_of_another_body]


@pytest.mark.parametrize("how", [*UNSIGNED, *TAMPERED, unsigned_payload, unknown_token])
def test_wrongly_signed_call_is_forbidden(url, how):
    assert_error(signed(url, "POST", "/signed/b", b'{"c": 1}', how), 403, "Forbidden")


@pytest.mark.parametrize(("seconds", "status"), [(-290, 200), (290, 200), (-310, 403), (310, 403)])
def test_clock_skew_of_five_minutes_is_accepted(url, monkeypatch, seconds, status):
    import datetime as clock

    import botocore.auth

    there = clock.datetime.now(clock.UTC) + clock.timedelta(seconds=seconds)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: there)
    assert signed(url, "GET", "/signed/b").status_code == status


def test_session_token_is_part_of_the_key_pair(tmp_path):
    keys = Credentials("ASIATEMPORARY", "secret", "the-token")
    environment = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
    with a_gateway(tmp_path, **environment, AWS_SESSION_TOKEN=keys.token) as (_, url):
        with_token = SigV4Auth(keys, "execute-api", "us-east-1").add_auth
        without = SigV4Auth(Credentials(keys.access_key, keys.secret_key), "execute-api", "us-east-1").add_auth
        assert signed(url, "GET", "/signed/b", how=with_token).status_code == 200
        assert signed(url, "GET", "/signed/b", how=without).status_code == 403


def test_operator_calls_are_forbidden_without_a_key_pair(tmp_path):
    with a_gateway(tmp_path, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="") as (_, url):
        assert_error(signed(url, "GET", "/signed/b"), 403, "Forbidden")


# --- the process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_gateway_leaves_no_process(tmp_path, number):
    with a_gateway(tmp_path) as (process, url):
        assert httpx.get(f"{url}/open").status_code == 200
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(number)
        assert process.wait(10) == (-9 if number == signal.SIGKILL else 0)
        assert ended(children)


def test_open_requests_are_answered_before_the_gateway_stops(tmp_path):
    with a_gateway(tmp_path) as (process, url):
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        httpx.get(f"{url}/open")  # an environment exists now, so the next call begins at once
        connection.request("GET", "/open?do=sleep&seconds=1")
        httpx.get(f"{url}/open")  # served after the other request arrived
        process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 200
        assert process.wait(10) == 0


def answer(api, name):
    return api.get("/open", params={"do": "answer", "with": name})


def assert_error(answer, status, message):
    assert (answer.status_code, answer.text) == (status, f'{{"message":"{message}"}}')
    assert answer.headers["content-type"] == "application/json"


def sign(request):
    SigV4Auth(KEYS, "execute-api", "eu-west-1").add_auth(request)


def signed(url, method, path, content=b"", how=sign):
    request = AWSRequest(method=method, url=url + path, data=content, headers={"content-type": "application/json"})
    request.headers["host"] = urlsplit(url).netloc
    how(request)
    return httpx.request(method, request.url, content=request.data, headers=dict(request.headers.items()))
