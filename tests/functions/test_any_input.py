"""Promise S2 for every HTTP route: no event causes a 5xx, and every refusal is a problem document."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nexmdm.runtime import http

from local import template
from local.gateway import payload
from tests.support.api import CONTEXT, call, enroll, event

TEXT = st.text(max_size=30)
NASTY = st.sampled_from(
    ["", "\x00", "\ud800", "null", "%00", "a" * 300, "-1", "1e400", "٣", "WyJ4Il0", "WzFd", "W10", "{}"]
)
QUERY = st.dictionaries(
    st.sampled_from(
        ["limit", "cursor", "online", "status", "alias", "agent_version", "state", "device_id", "batch", "token", "x"]
    ),
    TEXT | NASTY,
    max_size=4,
)
HEADERS = st.dictionaries(
    st.sampled_from(["authorization", "x-device-token", "x-admin-key", "x-admin", "idempotency-key", "content-type"]),
    TEXT | NASTY | st.sampled_from(["Bearer", "Bearer ", "Bearer x y"]),
    max_size=3,
)
BODIES = ["[]", "{}", '{"alias": 1}', '{"token_ids": [1]}', '{"aliases": ["\\u0000"]}']
BODY = st.none() | TEXT | NASTY | st.sampled_from(BODIES)
ROUTES = sorted(template.load().routes, key=lambda route: route.key)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.key)
def test_no_event_causes_a_5xx(url, route, monkeypatch):
    _, token = enroll("lobby")

    @given(query=QUERY, headers=HEADERS, body=BODY, name=TEXT | NASTY, base64=st.booleans(), signed_in=st.booleans())
    @example(query={"cursor": "WyJ4Il0"}, headers={}, body=None, name="x", base64=False, signed_in=True)
    @example(query={"cursor": "WyJ4IiwieCJd"}, headers={}, body=None, name="x", base64=False, signed_in=True)
    @example(query={}, headers={}, body="ü", name="x", base64=True, signed_in=True)
    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    def holds(query, headers, body, name, base64, signed_in):
        path = "/".join("x" if part.startswith("{") else part for part in route.path.split("/"))
        handler, sent = event(route.method, path, token=token if signed_in else None)
        sent["headers"] |= headers
        sent["queryStringParameters"] = query
        sent["pathParameters"] = {part.strip("{+}"): name for part in route.path.split("/") if part.startswith("{")}
        if body is not None:
            sent |= {"body": body, "isBase64Encoded": base64}
        answer = payload.response(json.loads(json.dumps(handler(sent, CONTEXT))))
        assert answer.status < 500, (answer, sent)
        if answer.status >= 400:
            assert dict(answer.headers)["content-type"] == "application/problem+json"
            assert json.loads(answer.body)["status"] == answer.status

    holds()


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/v1/devices", {"limit": "0"}, "query.limit"),
        ("/v1/devices", {"limit": "501"}, "query.limit"),
        ("/v1/devices", {"limit": "many"}, "query.limit"),
        ("/v1/devices", {"online": "maybe"}, "query.online"),
        ("/v1/devices", {"status": "great"}, "query.status"),
        ("/v1/devices", {"status": "null"}, "query.status"),
        ("/v1/commands", {"state": "NULL"}, "query.state"),
        ("/v1/devices", {"alias": "a\x00"}, "query.alias"),
        ("/v1/devices", {"cursor": "x"}, "query.cursor"),
        ("/v1/devices", {"cursor": "WzFd"}, "query.cursor"),
        ("/v1/devices/x/heartbeats", {"cursor": "WyJ4Il0"}, "query.cursor"),
        ("/v1/devices/x/heartbeats", {"cursor": "WyJcdTAwMDAiXQ"}, "query.cursor"),
        ("/v1/enroll-tokens", {"cursor": "WyJ4IiwieCJd"}, "query.cursor"),
        ("/v1/devices/%00", {}, "path.device_id"),
        ("/v1/apk/packages/nobody/signers", {}, "path.package_name"),
    ],
)
def test_invalid_query_or_path_names_its_field(url, path, query, field):
    call("GET", path, query=query).problem(422, field)


def test_invalid_base64_body_is_malformed(url):
    for text in ("%%%", "ü", "YQ"):
        handler, sent = event("POST", "/v1/register", headers={"x-admin-key": "x"})
        answer = handler({**sent, "body": text, "isBase64Encoded": True}, CONTEXT)
        assert answer["statusCode"] == 400, text


def test_unknown_route_returns_404_and_unexpected_error_500_without_details():
    routes = http.Routes()

    @routes("GET /broken")
    def broken(request):
        raise ValueError("of the inside")

    assert routes.handle({"routeKey": "GET /none"}, CONTEXT)["statusCode"] == 404
    answer = routes.handle({"routeKey": "GET /broken"}, CONTEXT)
    assert answer["statusCode"] == 500
    assert "inside" not in answer["body"]
