"""Promise S2: any invalid input gets a problem document with the field's path, and nothing is half-stored."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nexmdm.heartbeats.body import HeartbeatBody
from nexmdm.runtime import validation
from nexmdm.runtime.errors import Invalid, Malformed, Problem, TooLarge

from tests.support import agent
from tests.support.api import call

MIB = 1024 * 1024


def refused(body: bytes) -> Problem:
    with pytest.raises(Problem) as raised:
        validation.parse(body)
    assert 400 <= raised.value.status < 500
    return raised.value


REFUSED = object()


def parsed(body: bytes) -> Any:
    """The parsed document, or REFUSED; no other exception may be raised."""
    try:
        return validation.parse(body)
    except (Malformed, Invalid):
        return REFUSED


# --- JSON, strictly


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"a": NaN}', "$.a"),
        (b'{"a": [1, Infinity]}', "$.a[1]"),
        (b'{"a": {"b": -Infinity}}', "$.a.b"),
        (b'{"a": 1e999}', "$.a"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "$.b.c"),
        (b'{"a": 1, "a": 1}', "$.a"),
        (b'[{"a": 1}, {"a": 1, "\\u0061": 2}]', "$[1].a"),
        (b'{"a": "x\\u0000y"}', "$.a"),
        (b'{"a": ["\\ud800"]}', "$.a[0]"),
        (b'{"a": "\\udc00\\ud800"}', "$.a"),
    ],
)
def test_value_outside_json_is_refused_with_its_path(body, path):
    problem = refused(body)
    assert problem.document().errors[0].path == path
    assert problem.detail.startswith(path)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nothing",
        b"\xff\xfe",
        b'{"a": "\xc3\x28"}',
        b'{"a": "\x00"}',
        b"\xef\xbb\xbf{}",
        b'{"a": 1}{"b": 2}',
        b"{'a': 1}",
        b'{"a": 01}',
        b'{"a": .5}',
        b'{"a": 1,}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": -' + b"9" * 900_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_invalid_json_is_malformed(body):
    assert isinstance(refused(body), Malformed)


def test_body_limit_is_one_mebibyte():
    assert validation.parse(b" " * (MIB - 2) + b"{}") == {}
    assert isinstance(refused(b" " * (MIB - 1) + b"{}"), TooLarge)
    assert isinstance(refused(b"x" * 10 * MIB), TooLarge)


def test_surrogate_pair_escapes_and_an_escaped_backslash_are_accepted():
    assert validation.parse(b'{"a": "\\ud83d\\ude00", "b": "\\\\u0000"}') == {"a": "😀", "b": "\\u0000"}


def test_repeated_key_among_many_is_found_in_linear_time():
    """Finding the repeated key by counting each key would take an hour for this mebibyte."""
    keys = [f"{n:x}" for n in range(95_000)]
    body = "{" + ",".join(f'"{key}":1' for key in [*keys, keys[-1]]) + "}"
    assert len(body) < MIB
    assert refused(body.encode()).document().errors[0].path == f"$.{keys[-1]}"


def test_very_deep_documents_are_converted_or_refused():
    for depth in (100, 500, 900, 2_000, 20_000):
        body = b'{"battery":' + b"[" * depth + b"]" * depth + b"}"
        with pytest.raises(Problem) as raised:
            validation.convert(validation.parse(body), HeartbeatBody)
        assert raised.value.status in (400, 422)


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body):
    parsed(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_strict_json_is_returned_unchanged(document):
    body = json.dumps(document)
    assert parsed(body.encode()) in (json.loads(body), REFUSED)


# --- types


class Sample(msgspec.Struct):
    whole: int | None = None
    yes: bool | None = None
    few: Annotated[list[Annotated[str, msgspec.Meta(max_length=3)]], msgspec.Meta(max_length=2)] = []


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"whole": 85.5}, "$.whole"),
        ({"whole": "many"}, "$.whole"),
        ({"whole": True}, "$.whole"),
        ({"whole": [1]}, "$.whole"),
        ({"yes": "perhaps"}, "$.yes"),
        ({"few": ["a", "b", "c"]}, "$.few"),
        ({"few": ["a", "long text"]}, "$.few[1]"),
        ([], "$"),
        ("x", "$"),
        (None, "$"),
    ],
)
def test_value_of_the_wrong_type_is_refused_with_its_path(document, path):
    with pytest.raises(Invalid) as raised:
        validation.convert(document, Sample)
    assert raised.value.document().errors[0].path == path


def test_whole_numbers_are_accepted_as_floats_and_texts():
    assert validation.convert({"whole": 85.0}, Sample).whole == 85
    assert validation.convert({"whole": "85"}, Sample).whole == 85
    assert validation.convert({"yes": "true"}, Sample).yes is True


# --- whole heartbeats


PARTS = {
    "battery": ("pct", "charging", "temperature_c"),
    "system": ("uptime_seconds", "android_version", "sdk_int", "model", "manufacturer", "build_id"),
    "memory": ("total_ram_mb", "avail_ram_mb"),
    "network": ("transport", "ip"),
}
FIELDS = [*agent.heartbeat(), "status", "ip", "signal_dbm", "battery_pct", "temp_c", "uptime_s", "ram_used_mb"]
NASTY = (
    JSON
    | st.integers(-(10**20), 10**20)
    | st.sampled_from(
        [
            10**400,
            2**31,
            2**63,
            -(2**63),
            1e308,
            -0.0,
            "",
            "null",
            "NaN",
            "x" * 5000,
            "9999-12-31T23:59:59.999999Z",
            "9999-12-31T23:59:59-23:59",
            "0001-01-01T00:00:00+23:59",
            "2026-01-01T00:00:00+05:30",
            "2026-02-30T00:00:00Z",
            "\\u0000",
            "\x00",
            "\ud800",
        ]
    )
)


@st.composite
def heartbeat_bodies(draw) -> Any:
    body = agent.heartbeat()
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=4, unique=True)):
        body[field] = draw(NASTY)
    part = draw(st.sampled_from(sorted(PARTS)))
    if isinstance(body[part], dict):
        body[part] = {**body[part], draw(st.sampled_from(PARTS[part])): draw(NASTY)}
    return body


def consistent(db) -> None:
    """Check that a heartbeat is stored together with its last status, or not at all."""
    (found,) = db.execute("""SELECT (SELECT max(ts) FROM device_heartbeats) AS newest,
        (SELECT count(*) FROM device_heartbeats) AS rows, (SELECT count(*) FROM device_last_status) AS statuses""")
    assert (found["rows"] > 0) == (found["statuses"] == 1), found


def test_no_heartbeat_body_causes_a_5xx(db, device):
    @given(st.one_of(heartbeat_bodies(), JSON))
    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    def holds(body):
        raw = json.dumps(body).encode()
        single = call("POST", "/v1/heartbeat", raw, token=device.token)
        assert single.status == (200 if isinstance(body, dict) else 422), (single.status, body)
        batch = call("POST", "/v1/heartbeats", {"heartbeats": [body, agent.heartbeat()]}, token=device.token)
        assert batch.status == 200, (batch.status, body)
        first, second = batch.json["results"]
        assert (first["status"] == "rejected") == (single.status != 200), body
        assert second["status"] in ("created", "duplicate")
        consistent(db)

    holds()


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"NaN", b"9" * 5000], ids=lambda body: repr(body[:8]))
def test_body_that_is_not_an_object_stores_nothing(db, device, body):
    call("POST", "/v1/heartbeat", body, token=device.token).problem(422, "$")
    assert db.execute("SELECT * FROM device_heartbeats") == []
    assert db.execute("SELECT * FROM device_last_status") == []


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 300_000, b'{"a":' * 100_000], ids=lambda body: repr(body[:8]))
def test_body_that_is_not_json_stores_nothing(db, device, body):
    call("POST", "/v1/heartbeat", body, token=device.token).problem(400)
    assert db.execute("SELECT * FROM device_heartbeats") == []


@pytest.mark.parametrize(
    "instant",
    [
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "1970-01-01T00:00:00Z",
        1e18,
        -1e18,
        10**400,
    ],
)
def test_report_with_an_implausible_time_gets_the_receive_time(db, device, instant):
    answer = call("POST", "/v1/heartbeat", agent.heartbeat(timestamp_utc=instant), token=device.token)
    assert answer.status == 200
    for row in db.execute("SELECT ts, received_at FROM device_heartbeats"):
        assert row["ts"] == row["received_at"]


def test_offset_determines_the_instant(db, device):
    when = agent.an_hour_ago()
    there = when.timestamp() + 5.5 * 3600
    text = f"{datetime.fromtimestamp(there, UTC):%Y-%m-%dT%H:%M:%S}+05:30"
    assert call("POST", "/v1/heartbeat", agent.heartbeat(timestamp_utc=text), token=device.token).status == 200
    assert db.execute("SELECT ts FROM device_heartbeats") == [{"ts": when}]
