"""No reported value causes a report to be refused (H6): odd values of every kind, on every device route."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nexmdm.devices.fields import FIELDS, HISTORY, Field
from nexmdm.runtime.database import Database

from tests.support import agent
from tests.support.agent import an_hour_ago
from tests.support.api import Answer, call, enroll

HERE = "@here@"


class Device(NamedTuple):
    id: str
    token: str


@pytest.fixture
def device(url: str) -> Device:
    return Device(*enroll())


def body_with(path: str, value: bytes, when: datetime | None = None, **changes: Any) -> bytes:
    """A heartbeat whose member at `path` is written as `value`."""
    body = agent.heartbeat(when, **changes)
    *groups, name = path.split(".")
    holder = body
    for group in groups:
        holder = holder[group]
    holder[name] = HERE
    return json.dumps(body).encode().replace(f'"{HERE}"'.encode(), value)


def post(token: str, body: bytes, path: str = "/v1/heartbeat") -> Answer:
    return call("POST", path, body, token=token)


def last_status(db: Database) -> dict[str, Any]:
    (row,) = db.execute("SELECT d.*, l.* FROM devices d JOIN device_last_status l ON l.device_id = d.id")
    return row


@pytest.fixture
def dropped(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that returns the fields named in the log of the last request; the metric must agree."""

    def read() -> list[str]:
        named = [vars(record) for record in caplog.records if record.message == "reported values dropped"]
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
        counted = [line["ReportedValuesDropped"][0] for line in lines if "ReportedValuesDropped" in line]
        caplog.clear()
        assert [record["count"] for record in named] == counted
        assert len(named) <= 1, "a request wrote more than one record"
        return named[0]["fields"] if named else []

    return read


# --- numbers

NO_NUMBER = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e400",
    b"-1e400",
    b"1" + b"0" * 320,  # an integer that no float holds
    b"9" * 400,
    b"9" * 5000,
    b"-" + b"9" * 5000,
    b"1" + b"0" * 30,
    b"1e30",
    b"true",
    b"[]",
    b"[85]",
    b"{}",
    b'""',
    b'"full"',
    b'"NaN"',
    b'"8 5"',
    b'"0x10"',
    b'"1_0"',
    '"٨٥"'.encode(),
    b'"\\u0668"',
    b'"\\u0000"',
]
NUMBERS = [field for field in FIELDS if getattr(field.type, "__origin__", None) in (int, float)]


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_invalid_or_out_of_range_number_becomes_null(db, device, field: Field, dropped):
    bounds = field.type.__metadata__[0]
    values = [*NO_NUMBER, str(bounds.le + 1).encode(), str(bounds.ge - 1).encode(), b"%d.0" % (bounds.le + 1)]
    path, start = field.paths[-1], an_hour_ago()
    for n, value in enumerate(values):
        db.execute(f"UPDATE devices SET {field.name} = NULL" if field.kept == "device" else "SELECT 1")
        computed_from = {"memory": {}} if path == "ram_used_mb" else {}
        answer = post(device.token, body_with(path, value, start + n * timedelta(minutes=1), **computed_from))
        assert answer.status == 200, (value[:20], answer.text)
        assert last_status(db)[field.name] is None, value[:20]
        assert dropped() == [path], value[:20]


@pytest.mark.parametrize("field", [f for f in NUMBERS if f.type.__origin__ is int], ids=lambda field: field.name)
def test_whole_number_is_rounded_and_accepted_as_text(db, device, field: Field, dropped):
    path, start = field.paths[-1], an_hour_ago()
    texts = (b"57.5", b"57.6", b'"58"', b'"57.9"', b"58.0", b"5.8e1", b'"58.0"')
    for n, value in enumerate(texts):
        assert post(device.token, body_with(path, value, start + n * timedelta(minutes=1))).status == 200
        assert last_status(db)[field.name] == 58, value
        assert dropped() == []


@pytest.mark.parametrize("value", [b"-1", b"-1.0", b'"-1"'])
def test_minus_1_means_unknown_and_drops_nothing(db, device, value, dropped):
    assert post(device.token, body_with("battery.pct", value)).status == 200
    assert last_status(db)["battery_pct"] is None
    assert dropped() == []


# --- booleans and words


@pytest.mark.parametrize("field", [f for f in FIELDS if f.type is bool], ids=lambda field: field.name)
def test_invalid_boolean_becomes_null(db, device, field: Field, dropped):
    path, start = field.paths[-1], an_hour_ago()
    for n, value in enumerate((b'"yes"', b"2", b"0.5", b"[]", b"{}", b'""', b"NaN", b'"\\u0000"')):
        db.execute(f"UPDATE devices SET {field.name} = NULL" if field.kept == "device" else "SELECT 1")
        assert post(device.token, body_with(path, value, start + n * timedelta(minutes=1))).status == 200, value
        assert last_status(db)[field.name] is None, value
        assert dropped() == [path]


@pytest.mark.parametrize("value", [b'"warning"', b'"OK"', b"1", b"[]", b'""', b'"\\u0000"', b"NaN"])
def test_unknown_status_word_becomes_null(db, device, value, dropped):
    body = agent.heartbeat(status=HERE)
    assert post(device.token, json.dumps(body).encode().replace(f'"{HERE}"'.encode(), value)).status == 200
    assert last_status(db)["status"] is None
    assert db.execute("SELECT status FROM device_heartbeats") == [{"status": None}]
    assert dropped() == ["status"]


# --- text

REPLACED = "\N{REPLACEMENT CHARACTER}"
UNCLEAN = {
    "NUL": (b'"a\\u0000b"', f"a{REPLACED}b"),
    "a bare NUL": (b'"a\x00b"', f"a{REPLACED}b"),
    "a high surrogate": (b'"a\\ud83d"', f"a{REPLACED}"),
    "a low surrogate": (b'"\\udc00b"', f"{REPLACED}b"),
    "surrogates in the wrong order": (b'"\\udc00\\ud83d"', REPLACED * 2),
    "a surrogate before a pair": (b'"\\ud83d\\ud83d\\ude00"', f"{REPLACED}\N{GRINNING FACE}"),
    "no UTF-8": (b'"a\xffb"', f"a{REPLACED}b"),
    "an emoji that was cut": (b'"a\xf0\x9f\x98"', f"a{REPLACED * 3}"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', REPLACED * 3),
}
DESCRIBING = [f for f in FIELDS if getattr(f.type, "__origin__", None) is str and f.type.__metadata__[0].extra]
NAMES = [f for f in FIELDS if getattr(f.type, "__origin__", None) is str and not f.type.__metadata__[0].extra]


@pytest.mark.parametrize("kind", UNCLEAN)
@pytest.mark.parametrize("field", DESCRIBING, ids=lambda field: field.name)
def test_descriptive_text_is_cleaned(db, device, field: Field, kind, dropped):
    value, expected = UNCLEAN[kind]
    assert post(device.token, body_with(field.paths[-1], value)).status == 200
    assert last_status(db)[field.name] == expected
    assert dropped() == []


@pytest.mark.parametrize("field", DESCRIBING, ids=lambda field: field.name)
def test_descriptive_text_is_cut_at_its_limit(db, device, field: Field):
    limit = field.type.__metadata__[0].max_length
    assert post(device.token, body_with(field.paths[-1], json.dumps("é" * (limit + 1)).encode())).status == 200
    assert last_status(db)[field.name] == "é" * limit


@pytest.mark.parametrize("field", [*DESCRIBING, *NAMES], ids=lambda field: field.name)
def test_invalid_text_becomes_null(db, device, field: Field, dropped):
    path, start = field.paths[-1], an_hour_ago()
    if path == "unity_pkg_version":
        return  # a field of the flat form
    for n, value in enumerate((b"5", b"true", b"[]", b"{}", b"NaN")):
        db.execute(f"UPDATE devices SET {field.name} = NULL" if field.kept == "device" else "SELECT 1")
        assert post(device.token, body_with(path, value, start + n * timedelta(minutes=1))).status == 200, value
        assert last_status(db)[field.name] is None, value
        assert dropped() == [path]


@pytest.mark.parametrize("kind", [*UNCLEAN, "too long"])
@pytest.mark.parametrize("field", NAMES, ids=lambda field: field.name)
def test_name_is_never_cut_or_cleaned(db, device, field: Field, kind, dropped):
    limit = field.type.__metadata__[0].max_length
    value = json.dumps("x" * (limit + 1)).encode() if kind == "too long" else UNCLEAN[kind][0]
    body = body_with("app_version", value, app_versions=None) if field.name == "agent_version" else None
    body = body or json.dumps(agent.heartbeat(app_versions=None, network={}) | {field.name: HERE}).encode().replace(
        f'"{HERE}"'.encode(), value
    )
    if field.kept == "device":
        body = re.sub(rb'"system": {[^}]*}', b'"system": null', body)
    assert post(device.token, body).status == 200
    assert last_status(db)[field.name] is None
    assert len(dropped()) == 1


# --- timestamps

NO_TIME = [
    b'""',
    b'"yesterday"',
    b'"2026-11-28T10:00:60Z"',
    b'"2026-11-28T24:00:00Z"',
    b'"2026-13-01T00:00:00Z"',
    b'"2026-02-30T00:00:00Z"',
    b'"0000-01-01T00:00:00Z"',
    b'"10000-01-01T00:00:00Z"',
    b'"2026-11-28T10:00:00+99:00"',
    b'"2026-11-28T10:00:00+24:00"',
    '"٢٠٢٦-١١-٢٨T١٠:٠٠:٠٠Z"'.encode(),
    b"1764340000000",
    b'"1764340000000"',
    b"253402300800",
    b'"253402300800"',
    b"253402300799.9999999",
    b"1e18",
    b"-1e18",
    b"1e400",
    b"1" + b"0" * 320,
    b"9" * 5000,
    b"NaN",
    b"true",
    b"[]",
    b"{}",
    b'"\\u0000"',
    b'"\\ud800"',
    b'"\xff"',
]


def test_unreadable_timestamp_counts_as_absent(db, device, dropped):
    for value in NO_TIME:
        db.execute("DELETE FROM device_heartbeats")
        before = datetime.now(UTC)
        assert post(device.token, body_with("timestamp_utc", value)).status == 200, value[:30]
        (row,) = db.execute("SELECT ts, received_at FROM device_heartbeats")
        assert row["ts"] == row["received_at"], value[:30]
        assert last_status(db)["last_seen_at"] >= before - timedelta(seconds=1)
        assert dropped() == ["timestamp_utc"], value[:30]


# --- identifiers and tokens


@pytest.mark.parametrize(
    "value", [b'""', b"5", b"[]", b'"a\\u0000"', b'"\\ud800"', b'"\xff"', b"NaN", json.dumps("x" * 4097).encode()]
)
def test_invalid_fcm_token_keeps_the_stored_one(db, device, value):
    start = an_hour_ago()
    assert post(device.token, body_with("fcm_token", b'"fcm:good"', start)).status == 200
    assert post(device.token, body_with("fcm_token", value, start + timedelta(minutes=1))).status == 200
    assert last_status(db)["fcm_token"] == "fcm:good"


@pytest.mark.parametrize("name", ["ping_request_id", "device_id", "alias", "self_heal_hints", "unknown"])
@pytest.mark.parametrize(
    "value", [b"5", b'"\\u0000"', b'"\\ud800"', b'"\xff"', b"NaN", b"[[[]]]", b'"' + b"x" * 5000 + b'"']
)
def test_odd_identifiers_and_unread_members_lose_no_report(db, device, name, value):
    body = json.dumps(agent.heartbeat() | {name: HERE}).encode().replace(f'"{HERE}"'.encode(), value)
    assert post(device.token, body).status == 200
    assert last_status(db)["battery_pct"] == 85


def test_unread_members_are_not_logged(db, device, dropped):
    odd = {"alias": 5, "self_heal_hints": ["\x00"], "x": {"y": "\ud800"}, "speedtest_running_signals": "?"}
    assert post(device.token, json.dumps(agent.heartbeat(**odd)).encode()).status == 200
    assert dropped() == []


def test_odd_keys_lose_no_report(db, device):
    head = json.dumps(agent.heartbeat()).encode()[:-1]
    for key in (b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'""', b'"' + b"k" * 5000 + b'"', b'"battery\\u0000"'):
        assert post(device.token, head + b", " + key + b": 1}").status == 200, key[:20]
    assert last_status(db)["battery_pct"] == 85


def test_last_of_duplicate_keys_counts(db, device):
    body = agent.heartbeat()
    head = json.dumps(body).encode()[:-1]
    assert (
        post(device.token, head + b', "battery": {"pct": 1, "pct": 2}, "power_ok": false, "power_ok": true}').status
        == 200
    )
    row = last_status(db)
    assert (row["battery_pct"], row["plugged"], row["power_ok"]) == (2, None, True)


@pytest.mark.parametrize("group", ["battery", "system", "memory", "network"])
@pytest.mark.parametrize("value", [b"5", b'"x"', b"[]", b"true", b"NaN", b'"\\ud800"'])
def test_group_that_is_not_an_object_is_dropped_as_a_whole(db, device, group, value, dropped):
    assert post(device.token, body_with(group, value)).status == 200
    assert last_status(db)["agent_version"] == "2.4.1"
    assert dropped() == [group]


# --- app_versions


@pytest.mark.parametrize(
    "apps",
    [
        b"[]",
        b"5",
        b'"x"',
        b"NaN",
        b'{"a\\u0000": {}}',
        b'{"\\ud800": {}}',
        b'{"": {}}',
        b'{"' + b"p" * 256 + b'": {}}',
        b'{"com.x": 5}',
        b'{"com.x": null}',
        b'{"com.x": {"version_code": 1e400, "version_name": 7, "installed": "maybe"}}',
        b'{"com.x": {"version_code": 9223372036854775808}}',
        b'{"com.x": {"version_name": "' + b"9" * 201 + b'"}}',
        b'{"com.x": {"version_name": "1\\u0000"}}',
        b"{" + b",".join(b'"com.app%d":{}' % n for n in range(30_000)) + b"}",
    ],
    ids=lambda apps: apps[:30].decode(),
)
def test_odd_app_versions_lose_no_report(db, device, apps, dropped):
    assert post(device.token, body_with("app_versions", apps)).status == 200
    assert last_status(db)["battery_pct"] == 85
    assert all(name.startswith("app_versions") for name in dropped())


def test_odd_version_of_an_unmonitored_app_is_accepted(db, device):
    apps = {
        "io.unitynodes.unityapp": {"installed": True, "version_name": "1.9.0"},
        "com.x": {"version_name": "9" * 201},
    }
    assert post(device.token, json.dumps(agent.heartbeat(app_versions=apps)).encode()).status == 200
    assert last_status(db)["unity_pkg_version"] == "1.9.0"


# --- refused bodies


@pytest.mark.parametrize(
    "body", [b"[]", b"5", b'"x"', b"null", b"true", b"NaN", b"{", b'{"a": }', b"{}}", b"\xff", b"{'a': 1}"]
)
@pytest.mark.parametrize("path", ["/v1/heartbeat", "/v1/heartbeats", "/v1/devices/fcm-token", "/v1/action-result"])
def test_body_that_is_not_a_json_object_is_refused(db, device, body, path):
    assert post(device.token, body, path).status in (400, 422)
    assert db.execute("SELECT * FROM device_last_status") == []


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_bounded_at_32(db, device, opening, closing):
    def deep(depth: int) -> bytes:
        inner = opening * depth + b"1" + closing * depth
        return body_with("alias", inner)

    assert post(device.token, deep(31)).status == 200
    post(device.token, deep(32)).problem(400)
    post(device.token, deep(100_000)).problem(400)


def test_brackets_in_text_do_not_count_as_nesting(db, device):
    assert post(device.token, body_with("network.ssid", json.dumps("[{" * 90 + '"\\').encode())).status == 200
    assert last_status(db)["ssid"] == "[{" * 90 + '"\\'


def test_batch_is_checked_item_by_item_up_to_500(db, device):
    start = an_hour_ago()
    items = [
        body_with("battery.pct", b"NaN", start),
        b"5",
        body_with("network.ssid", b'"\\ud800\xff\x00"', start + timedelta(minutes=1)),
        b"null",
        body_with("timestamp_utc", b"[]"),
    ]
    answer = post(device.token, b'{"heartbeats": [' + b",".join(items) + b"]}", "/v1/heartbeats")
    assert [result["status"] for result in answer.json["results"]] == [
        "created",
        "rejected",
        "created",
        "rejected",
        "created",
    ]
    for most, text in ((500, b"[" + b",".join([b"{}"] * 500) + b"]"), (501, b"[" + b",".join([b"0"] * 501) + b"]")):
        status = post(device.token, b'{"heartbeats": ' + text + b"}", "/v1/heartbeats").status
        assert status == (200 if most == 500 else 422)
    for value in (b"5", b"{}", b'"[]"', b"null"):
        post(device.token, b'{"heartbeats": ' + value + b"}", "/v1/heartbeats").problem(422, "$.heartbeats")
    post(device.token, b"{}", "/v1/heartbeats").problem(422, "$.heartbeats")


# --- the other routes


def dispatch(db: Database, device: str, name: str = "r-1", action: str = "ping") -> None:
    db.execute(
        """INSERT INTO fcm_dispatches (request_id, device_id, action, state, created_by, expires_at)
           VALUES (%(name)s, %(device)s, %(action)s, 'sent', 'operator', statement_timestamp() + interval '1 hour')""",
        {"name": name, "device": device, "action": action},
    )


def result(db: Database) -> tuple[Any, Any]:
    (row,) = db.execute("SELECT result, result_message, completed_at FROM fcm_dispatches")
    assert row["completed_at"] is not None
    return row["result"], row["result_message"]


ODD = [
    b"5",
    b"[]",
    b"{}",
    b"true",
    b"NaN",
    b'"\\u0000"',
    b'"\\ud83d"',
    b'"\xff"',
    b"9" * 5000,
    b'"' + b"x" * 3000 + b'"',
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: value[:12].decode(errors="replace"))
@pytest.mark.parametrize(
    ("path", "given", "odd"),
    [
        ("/v1/devices/{id}/ack", b'"type": "PING_ACK", "request_id": "r-1"', ("status", "message", "battery", "rssi")),
        ("/v1/action-result", b'"request_id": "r-1"', ("action", "outcome", "message", "finished_at")),
        (
            "/v1/remote-exec/ack",
            b'"correlation_id": "r-1", "status": "OK"',
            ("exec_id", "exit_code", "output", "error", "ts"),
        ),
    ],
)
def test_result_with_an_odd_value_settles_its_command(db, device, path, given, odd, value):
    for name in odd:
        db.execute("DELETE FROM fcm_dispatches")
        dispatch(db, device.id)
        body = b"{" + given + b', "%s": %s}' % (name.encode(), value)
        answer = call("POST", path.format(id=device.id), body, token=device.token)
        assert answer.status == 200, (name, answer.text)
        result(db)


def test_texts_of_results_are_cut_at_their_limits(db, device):
    dispatch(db, device.id)
    body = {"request_id": "r-1", "outcome": "ok" * 100, "message": "m" * 1001, "finished_at": 1764340000000}
    assert call("POST", "/v1/action-result", body, token=device.token).status == 200
    assert result(db) == (("ok" * 100)[:50], "m" * 1000)


def test_shell_output_with_nul_or_half_an_emoji_settles_the_command(db, device):
    dispatch(db, device.id, action="remote_exec_shell")
    body = (
        b'{"exec_id": "r-1", "correlation_id": "r-1", "device_id": "%s", "status": "OK", "exit_code": 0.0,'
        b' "output": "a\\u0000b\\ud83d", "error": null, "ts": 1}' % device.id.encode()
    )
    assert call("POST", "/v1/remote-exec/ack", body, token=device.token).status == 200
    assert json.loads(result(db)[1]) == {"exit_code": 0, "output": f"a{REPLACED}b{REPLACED}", "error": ""}


def test_invalid_identifiers_and_statuses_are_still_refused(db, device):
    dispatch(db, device.id)
    ack = f"/v1/devices/{device.id}/ack"
    call("POST", ack, {"type": "NO_ACK", "request_id": "r-1"}, token=device.token).problem(400)
    call("POST", ack, {"type": "PING_ACK", "request_id": "x" * 129}, token=device.token).problem(400)
    call("POST", "/v1/action-result", {"outcome": "ok"}, token=device.token).problem(422, "$.request_id")
    remote = {"correlation_id": "r-1", "exec_id": "r-1", "device_id": device.id}
    call("POST", "/v1/remote-exec/ack", remote | {"status": "GREAT"}, token=device.token).problem(422, "$.status")
    nameless = {"status": "OK", "correlation_id": 5}
    call("POST", "/v1/remote-exec/ack", nameless, token=device.token).problem(422, "$.correlation_id")
    update = "/v1/apk/installation/update"
    call("POST", update, {"installation_id": 1, "status": "odd"}, token=device.token).problem(422, "$.status")
    call("POST", update, {"installation_id": "x", "status": "failed"}, token=device.token).problem(
        422, "$.installation_id"
    )
    for token in ("", "x" * 4097, 5, None, "a\x00"):
        call("POST", "/v1/devices/fcm-token", {"fcm_token": token}, token=device.token).problem(422, "$.fcm_token")
    assert db.execute("SELECT completed_at FROM fcm_dispatches") == [{"completed_at": None}]


@pytest.mark.parametrize(
    ("value", "stored"), [(b"57.5", 58), (b"101", None), (b"-1", None), (b"NaN", None), (b'"40"', 40)]
)
def test_odd_installation_progress_does_not_lose_the_report(db, device, value, stored):
    db.execute(
        """INSERT INTO apk_versions (id, version_name, version_code, file_path, file_size, package_name, state)
           VALUES (1, '1', 1, 'x', 1, 'com.x', 'adopted')"""
    )
    db.execute(
        "INSERT INTO apk_installations (id, device_id, apk_version_id, status) VALUES (7, %(id)s, 1, 'pending')",
        {"id": device.id},
    )
    body = b'{"installation_id": 7.0, "status": "downloading", "download_progress": %s, "error_message": ["?"]}' % value
    assert call("POST", "/v1/apk/installation/update", body, token=device.token).status == 200
    assert db.execute("SELECT download_progress FROM apk_installations") == [{"download_progress": stored}]


# --- the property: a device that sends an object is seen


# JSON text of any kind of value, well-formed or not.
TEXTS = st.text(st.characters(), max_size=20).map(lambda text: json.dumps(text).encode())
NUMBERS_OF_ALL_KINDS = st.one_of(st.integers(), st.floats()).map(lambda number: json.dumps(number).encode())
KNOWN = st.sampled_from([*NO_NUMBER, *NO_TIME, *ODD, *(value for value, _ in UNCLEAN.values())])
VALUES = st.recursive(
    st.one_of(TEXTS, KNOWN, NUMBERS_OF_ALL_KINDS, st.sampled_from([b"null", b"true", b"false"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: b"[" + b",".join(items) + b"]"),
        st.lists(st.tuples(TEXTS, inner), max_size=3).map(
            lambda pairs: b"{" + b",".join(key + b":" + value for key, value in pairs) + b"}"
        ),
    ),
    max_leaves=5,
)


PATHS = sorted({path for field in FIELDS for path in field.paths if "." in path} | set(agent.heartbeat()))


def test_any_object_body_updates_last_seen(db, device):
    """The property to hold: `last_seen_at` advances."""

    @given(st.dictionaries(st.sampled_from(PATHS), VALUES, min_size=1, max_size=6), st.booleans())
    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    def holds(odd, batch):
        db.execute("DELETE FROM device_heartbeats")
        db.execute("UPDATE device_last_status SET last_seen_at = last_seen_at - interval '1 hour'")
        body = agent.heartbeat()
        marks = {}
        for n, (path, value) in enumerate(odd.items()):
            *groups, name = path.split(".")
            holder = body
            for group in groups:
                holder = holder[group] if isinstance(holder.get(group), dict) else {}
            holder[name] = mark = f"@{n}@"
            marks[mark] = value
        text = json.dumps(body).encode()
        for mark, value in marks.items():
            text = text.replace(f'"{mark}"'.encode(), value)
        before = datetime.now(UTC)
        answer = (
            post(device.token, b'{"heartbeats": [' + text + b"]}", "/v1/heartbeats")
            if batch
            else post(device.token, text)
        )
        assert answer.status == 200, (text, answer.text)
        assert last_status(db)["last_seen_at"] >= before - timedelta(seconds=1), text

    holds()


def test_history_and_last_status_store_the_same_values(db, device):
    assert post(device.token, json.dumps(agent.heartbeat()).encode()).status == 200
    (row,) = db.execute("SELECT * FROM device_heartbeats")
    assert {f.name: row[f.name] for f in HISTORY} == {f.name: last_status(db)[f.name] for f in HISTORY}
