"""Promise S2 for every HTTP route: no event causes a 5xx, and every refusal is a problem document."""

import base64
import json
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nexmdm.runtime import http

from local import template
from local.gateway import payload
from tests.support.api import CONTEXT, ROOT, call, enroll, event

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
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
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


# Offsets that PostgreSQL refuses, and the ends of the years that Python knows.
ODD_INSTANTS = [
    "2030-01-01T00:00:00-20:39",
    "2030-01-01T00:00:00+17:52",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:00",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:00",
    "9999-12-31T23:59:59",
    "0001-01-01T00:00:00",
]
SCHEDULE = {"name": "s", "action": "ping", "filter": {"all": True}, "timezone": "America/New_York"}
# Every place of an instant. Names ending in ? are query parameters.
INSTANTS = [
    ("GET", "/v1/audit/commands", "since?", {}),
    ("GET", "/v1/events", "since?", {}),
    ("GET", "/v1/fleet/history", "from?", {}),
    ("GET", "/v1/fleet/history", "to?", {}),
    ("GET", "/v1/devices/x/history", "from?", {}),
    ("GET", "/v1/devices/x/history", "to?", {}),
    ("POST", "/v1/mutes", "until", {"filter": {"all": True}}),
    ("POST", "/v1/schedules", "at", SCHEDULE),
    ("POST", "/v1/schedules", "at", SCHEDULE | {"timezone": "Asia/Tokyo"}),
    ("PATCH", "/v1/schedules/once", "at", {}),
]


@pytest.mark.parametrize("instant", ODD_INSTANTS)
@pytest.mark.parametrize(("method", "path", "name", "body"), INSTANTS)
def test_odd_instant_is_answered_or_refused(url, method, path, name, body, instant):
    once = SCHEDULE | {"name": "once", "at": "2040-01-01T00:00:00Z"}
    assert call("POST", "/v1/schedules", once).status == 201
    given_ = {"query": {name[:-1]: instant}} if name.endswith("?") else {"body": body | {name: instant}}
    assert call(method, path, **given_).status in (200, 201, 404, 422)


@pytest.mark.parametrize("instant", ["253402300800", "253402300799.9999999"])
@pytest.mark.parametrize(("method", "path", "name", "body"), INSTANTS)
def test_number_beyond_the_year_9999_is_refused_with_its_field(url, method, path, name, body, instant):
    call("POST", "/v1/schedules", SCHEDULE | {"name": "once", "at": "2040-01-01T00:00:00Z"})
    if name.endswith("?"):
        call(method, path, query={name[:-1]: instant}).problem(422, f"query.{name[:-1]}")
        return
    for given_ in (instant, float(instant)):
        call(method, path, body | {name: given_}).problem(422, f"$.{name}")


def test_every_instant_of_a_request_is_tried():
    """Of the routes in docs/openapi.json, except the device's own: test_odd_values.py has those."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    found = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                if "date-time" in json.dumps(parameter):
                    found.add((method.upper(), re.sub(r"{\w+}", "x", path), f"{parameter['name']}?"))
            body = json.dumps(operation.get("requestBody", {}))
            for schema in re.findall(r"#/components/schemas/(\w+)", body):
                for name, member in document["components"]["schemas"][schema].get("properties", {}).items():
                    if "date-time" in json.dumps(member):
                        found.add((method.upper(), path, name))
    assert found - {("POST", "/v1/heartbeat", "timestamp_utc")} <= {entry[:3] for entry in INSTANTS}


@pytest.mark.parametrize("instant", [*ODD_INSTANTS[:6], "0001-01-01T00:00:00", "9999-12-31T23:59:59"])
def test_odd_instant_in_a_cursor_is_answered_or_refused(url, instant):
    """An operator may write a cursor by hand."""
    cursors = [base64.urlsafe_b64encode(json.dumps([instant, *rest]).encode()).decode() for rest in ([], [1], ["x"])]
    for path in ("/v1/events", "/v1/commands", "/v1/devices/x/heartbeats", "/v1/schedules/once/runs", "/v1/alerts"):
        for cursor in cursors:
            assert call("GET", path, query={"cursor": cursor}).status in (200, 404, 422)


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
