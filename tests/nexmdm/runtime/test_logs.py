"""One log record per database operation, and promise S1: no secret in logs or responses, no state of earlier calls."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from nexmdm.runtime import logs, settings

from tests.support import agent
from tests.support.api import ROOT, Device, call, enroll, event


@pytest.fixture
def device(url) -> Device:
    return Device(*enroll("lobby"))


@pytest.fixture
def records() -> Iterator[Callable[[], list[dict]]]:
    """A function that returns the records written since its last call."""
    written = io.StringIO()
    handler = logs.logger().registered_handler
    before = handler.setStream(written)

    def take() -> list[dict]:
        lines = written.getvalue().splitlines()
        written.seek(0)
        written.truncate()
        return [json.loads(line) for line in lines]

    yield take
    handler.setStream(before)


def operations(records: list[dict]) -> list[tuple]:
    return [(r["event"], r["entity"]) for r in records if r["message"].startswith("db_operation")]


# --- db_operation


def test_message_is_constant_and_values_are_fields(device, records):
    when = agent.an_hour_ago()
    records()
    for instant in (when, when + timedelta(seconds=1)):
        call("POST", "/v1/heartbeat", agent.heartbeat(instant, device_id=device.id), token=device.token)
    created, duplicate = records()
    for record, what in ((created, "create"), (duplicate, "dedup_hit")):
        keys = {"device_id": device.id, "bucket": when.isoformat()}
        assert record["level"] == "INFO"
        assert (record["event"], record["entity"], record["keys"]) == (what, "device_heartbeats", keys)
        assert isinstance(record["latency_ms"], float)
        literal = f"db_operation event={what} entity=device_heartbeats keys={keys} latency_ms={record['latency_ms']}"
        assert record["message"] == literal


def test_each_operation_writes_one_record(url, records):
    made = call("POST", "/v1/enroll-tokens", {"aliases": ["lobby"]}).json["items"][0]
    body = {"alias": "lobby"}
    device = call("POST", "/v1/register", body, headers={"x-admin-key": made["token"]}).json
    path, token = f"/v1/devices/{device['device_id']}", device["device_token"]
    call("POST", "/v1/heartbeats", {"heartbeats": [agent.heartbeat()] * 3}, token=token)
    call("POST", "/v1/devices/fcm-token", {"fcm_token": "fcm:x"}, token=token)
    call("PATCH", path, {"alias": "hall"})
    call("DELETE", path)
    call("DELETE", f"/v1/enroll-tokens/{made['token_id']}")
    assert operations(records()) == [
        ("create", "enrollment_tokens"),
        ("create", "devices"),
        ("create", "device_heartbeats"),
        ("update", "devices"),
        ("update", "devices"),
        ("delete", "devices"),
        ("update", "enrollment_tokens"),
    ]


def test_heartbeat_above_150_ms_is_a_warning(records):
    for latency, level in ((150.0, "INFO"), (150.01, "WARNING")):
        logs.db_operation("create", "device_heartbeats", {"device_id": "d"}, latency)
        (record,) = records()
        assert record["level"] == level
    logs.db_operation("create", "devices", {"device_id": "d"}, 1000)
    assert records()[0]["level"] == "INFO"


def test_device_id_of_another_device_is_logged(device, records):
    records()
    call("POST", "/v1/heartbeat", agent.heartbeat(device_id="another"), token=device.token)
    call("POST", "/v1/heartbeats", {"heartbeats": [agent.heartbeat(device_id="a third")]}, token=device.token)
    warnings = [(r["device_id"], r["claimed"]) for r in records() if "claimed" in r]
    assert warnings == [(device.id, "another"), (device.id, "a third")]


def test_own_device_id_is_not_logged_as_a_mismatch(device, records):
    records()
    call("POST", "/v1/heartbeat", agent.heartbeat(device_id=device.id), token=device.token)
    call("POST", "/v1/heartbeats", {"heartbeats": [agent.heartbeat(device_id=device.id)]}, token=device.token)
    assert [r["level"] for r in records()] == ["INFO", "INFO"]


# --- what a heartbeat's record contains, and how many heartbeats are recorded


def beat(device: Device, when: datetime | None = None) -> dict:
    handler, sent = event("POST", "/v1/heartbeat", agent.heartbeat(when, device_id=device.id), token=device.token)
    context = type(
        "Context", (), {"aws_request_id": "0" * 36, "function_name": "nexmdm-HeartbeatFunction-AbCdEfGhIjKl"}
    )
    return handler(sent, context)


def test_heartbeat_writes_at_most_500_bytes_of_log_and_no_metric(device, records, capsys):
    assert len(device.id) == 36
    records()
    assert beat(device)["statusCode"] == 200
    (record,) = records()
    assert len(json.dumps(record, separators=(",", ":"))) <= 500
    assert record["function"] == "HeartbeatFunction"
    assert "_aws" not in capsys.readouterr().out


def test_other_handlers_and_filters_see_the_record_of_a_heartbeat(device, records):
    seen: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    def name(record: logging.LogRecord) -> bool:
        record.shop = "lobby"
        return True

    log, listener = logging.getLogger("nexmdm"), Listener()
    log.addHandler(listener)
    log.addFilter(name)
    try:
        records()
        beat(device)
        (written,) = records()
    finally:
        log.removeHandler(listener)
        log.removeFilter(name)
    (record,) = [record for record in seen if hasattr(record, "event")]
    assert (record.levelname, record.event, record.entity) == ("INFO", "create", "device_heartbeats")
    assert record.getMessage() == written["message"]
    assert written["shop"] == "lobby"
    assert abs(record.created - time.time()) < 60


def test_logger_filter_suppresses_a_record(device, records):
    log = logging.getLogger("nexmdm")
    log.addFilter(nothing := lambda record: not hasattr(record, "event"))
    try:
        records()
        beat(device)
        assert records() == []
    finally:
        log.removeFilter(nothing)


def test_records_of_every_form_are_json(records):
    def failed() -> None:
        raise ValueError("of the test")

    log = logs.logger()
    log.info("with %s", "arguments")
    log.info({"a": "mapping"})
    log.info("odd values", extra={"number": 2**70, "keys": {1: {"a"}}, "error": ValueError("x"), "none": None})
    try:
        failed()
    except ValueError:
        log.exception("failed")
    arguments, mapping, odd, exception = records()
    assert arguments["message"] == "with arguments"
    assert mapping["message"] == {"a": "mapping"}
    assert odd["number"] == 2**70
    assert "none" not in odd
    assert exception["exception_name"] == "ValueError"
    assert all(record["timestamp"][10] == "T" for record in (arguments, mapping, odd, exception))


def test_one_in_n_ordinary_heartbeats_is_recorded(device, records, monkeypatch):
    monkeypatch.setenv("HEARTBEAT_LOG_SAMPLE", "3")
    settings.load.cache_clear()
    try:
        records()
        for n in range(6):
            assert beat(device, agent.an_hour_ago() + timedelta(minutes=n))["statusCode"] == 200
        assert operations(records()) == [("create", "device_heartbeats")] * 2
        for _ in range(3):
            call("POST", "/v1/heartbeat", agent.heartbeat(), token="unknown")
            call("POST", "/v1/heartbeat", agent.heartbeat(device_id="another"), token=device.token)
        messages = [record["message"] for record in records()]
        assert messages.count("refused") == 3, "refused ones are always recorded"
        assert messages.count("device_id in the body is not the token's") == 3, "odd heartbeats are always recorded"
    finally:
        monkeypatch.undo()
        settings.load.cache_clear()


def test_slow_heartbeat_is_always_recorded(records):
    for _ in range(4):
        logs.heartbeat("create", {"device_id": "d"}, 150.01, 1_000_000)
    assert [record["level"] for record in records()] == ["WARNING"] * 4


# --- nothing is carried over to the next call


def test_record_contains_only_its_own_call(device, records):
    records()
    handler, sent = event("POST", "/v1/heartbeat", agent.heartbeat(), token=device.token)
    for n in (1, 2):
        logs.logger().append_keys(of_the_call_before="left over")
        context = type("Context", (), {"aws_request_id": f"request-{n}", "function_name": "heartbeat"})
        assert handler(sent, context)["statusCode"] == 200
    for n, record in enumerate((r for r in records() if "event" in r), 1):
        assert record["function_request_id"] == f"request-{n}"
        assert record["function"] == "heartbeat"
        assert "of_the_call_before" not in record


# --- S1: canaries


RUN = textwrap.dedent("""
    import json, sys
    from tests.support.api import CONTEXT, event
    for method, path, body, how in json.load(sys.stdin):
        body = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
        handler, sent = event(method, path, body, **how)
        print("answer", json.dumps(handler(sent, CONTEXT)))
""")
CANARY = "canary-" + "5ecre7" * 6


def in_a_process(calls: list, **environment: str) -> tuple[list[dict], str]:
    """The responses to the calls, and everything else that their process wrote to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=ROOT,
        env={**os.environ, "POWERTOOLS_LOG_LEVEL": "DEBUG", **environment},
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [line.removeprefix("answer ") for line in done.stdout.splitlines() if line.startswith("answer ")]
    told = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("answer ")) + done.stderr
    return [json.loads(answer) for answer in answers], told


def calls_with_canaries(token: str) -> list:
    beat = agent.heartbeat(fcm_token=f"fcm-{CANARY}")
    headers = [
        {"authorization": f"Bearer {CANARY}"},
        {"x-device-token": CANARY},
        {"authorization": f"Basic {CANARY}"},
        {"authorization": f"Bearer {CANARY}\x00"},
        {"authorization": f"Bearer {token}"},
    ]
    calls = [["POST", path, beat, {"headers": h}] for path in ("/v1/heartbeat", "/v1/heartbeats") for h in headers]
    calls += [["POST", "/v1/devices/fcm-token", {"fcm_token": CANARY}, {"headers": h}] for h in headers]
    for name in ("x-admin-key", "x-admin", "authorization"):
        value = f"Bearer {CANARY}" if name == "authorization" else CANARY
        calls += [
            ["POST", "/v1/register", body, {"headers": {name: value}}] for body in ({"alias": "lobby"}, "{", None)
        ]
    calls += [
        ["POST", "/v1/heartbeat", body, {"token": token}]
        for body in (
            {"fcm_token": CANARY, "battery": {"pct": CANARY}},
            {"fcm_token": CANARY * 200},
            {"fcm_token": [CANARY]},
            {"timestamp_utc": CANARY},
            {"app_version": CANARY * 3},
            f'{{"fcm_token": "{CANARY}", "fcm_token": "{CANARY}"}}',
            f'{{"fcm_token": "{CANARY}\\u0000"}}',
            f'{{"fcm_token": "{CANARY}',
            f'"{CANARY}"',
            CANARY,
        )
    ]
    return calls


def test_no_canary_in_logs_or_responses(device):
    answers, told = in_a_process(calls_with_canaries(device.token))
    assert {answer["statusCode"] for answer in answers} >= {200, 400, 401, 403, 422}
    assert "db_operation" in told
    assert CANARY not in told
    assert CANARY[:20] not in json.dumps(answers)
    assert device.token not in told


@pytest.mark.parametrize("sql", ["ALTER TABLE devices RENAME COLUMN fcm_token TO other", "DROP TABLE devices CASCADE"])
def test_no_canary_when_the_database_refuses(db, device, sql):
    """A driver's error messages quote values, so a failed statement is reported by its code and its place."""
    db.execute(sql)
    answers, told = in_a_process(calls_with_canaries(device.token)[:10])
    assert 500 in {answer["statusCode"] for answer in answers}
    assert "sqlstate" in told
    assert CANARY[:20] not in told + json.dumps(answers)
    assert device.token not in told


def test_no_canary_when_a_constraint_is_violated(db, device):
    db.execute("ALTER TABLE devices ADD CONSTRAINT none CHECK (fcm_token IS NULL)")
    answers, told = in_a_process([["POST", "/v1/devices/fcm-token", {"fcm_token": CANARY}, {"token": device.token}]])
    assert answers[0]["statusCode"] == 500
    assert '"constraint":"none"' in told
    assert CANARY not in told + json.dumps(answers)


def test_no_password_of_the_database_in_an_outage(device):
    dsn = f"postgresql://user:{CANARY}@127.0.0.1:1/none"
    answers, told = in_a_process([["POST", "/v1/heartbeat", {}, {"token": device.token}]], DATABASE_URL=dsn)
    assert answers[0]["statusCode"] == 503
    assert CANARY not in told + json.dumps(answers)


def test_invalid_setting_is_named_in_the_log_only(device):
    """The operator who deploys must find the setting; the caller must learn nothing."""
    answers, told = in_a_process(
        [["POST", "/v1/heartbeat", {}, {"token": device.token}]], HEARTBEAT_BUCKET_SECONDS=CANARY
    )
    assert answers[0]["statusCode"] == 500
    assert "HEARTBEAT_BUCKET_SECONDS" in told
    assert "HEARTBEAT_BUCKET_SECONDS" not in json.dumps(answers)
    assert CANARY not in told + json.dumps(answers)


def test_new_tokens_are_not_logged(url):
    answers, told = in_a_process([["POST", "/v1/enroll-tokens", {"aliases": ["a", "b"]}, {}]])
    raw = [item["token"] for item in json.loads(answers[0]["body"])["items"]]
    answers, more = in_a_process([["POST", "/v1/register", {"alias": "a"}, {"headers": {"x-admin-key": raw[0]}}]])
    made = json.loads(answers[0]["body"])["device_token"]
    assert not any(secret in told + more for secret in (*raw, made))
    assert not re.search("[0-9a-f]{64}", told + more), "the log contains the SHA-256 of a token"
