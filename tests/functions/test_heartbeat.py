"""POST /v1/heartbeat and POST /v1/heartbeats as the agent sees them: responses, statuses, round trips and outages."""

import json
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta

import pytest
from nexmdm.runtime import database, settings
from nexmdm.runtime.database import Database

from tests.support import agent
from tests.support.agent import an_hour_ago
from tests.support.api import ROOT, Device, call, enroll, event
from tests.support.relay import relay

MINUTE = timedelta(minutes=1)


@pytest.fixture
def device(url) -> Device:
    return Device(*enroll("lobby"))


@pytest.fixture
def line(url, device, monkeypatch):
    """The functions reach the database through a relay that counts messages and can cut the connection."""
    database.connection().close()
    with relay(url) as line:
        monkeypatch.setenv("DATABASE_URL", line.url)
        settings.load.cache_clear()
        database.connection.cache_clear()
        yield line
        database.connection().close()


def post(token: str | None, body=None, path: str = "/v1/heartbeat", **how):
    return call("POST", path, agent.heartbeat() if body is None else body, token=token, **how)


def batch(token: str | None, *bodies):
    return post(token, {"heartbeats": list(bodies)}, "/v1/heartbeats")


def count(db: Database) -> int:
    return db.execute("SELECT count(*) AS n FROM device_heartbeats")[0]["n"]


# --- the response


def test_response_has_ok_and_the_interval(device, monkeypatch):
    answer = post(device.token)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"ok": True, "status": "created", "next_heartbeat_seconds": 600, "pending_commands": []}
    monkeypatch.setenv("HEARTBEAT_INTERVAL_SECONDS", "900")
    settings.load.cache_clear()
    assert post(device.token).json["next_heartbeat_seconds"] == 900


def test_duplicate_gets_the_same_response(db, device):
    body = agent.heartbeat(an_hour_ago())
    assert [post(device.token, body).json["status"] for _ in range(3)] == ["created", "duplicate", "duplicate"]
    assert count(db) == 1


@pytest.mark.parametrize(
    "header", [{"authorization": "Bearer {}"}, {"authorization": "bearer {}"}, {"x-device-token": "{}"}]
)
def test_both_headers_of_the_agent_are_accepted(device, header):
    headers = {name: value.format(device.token) for name, value in header.items()}
    assert post(None, headers=headers).status == 200
    assert call("POST", "/v1/heartbeats", {"heartbeats": []}, headers=headers).status == 200


def test_device_comes_from_the_token_and_not_from_the_body(db, device):
    assert post(device.token, agent.heartbeat(device_id="11111111-1111-1111-1111-111111111111")).status == 200
    assert db.execute("SELECT device_id FROM device_heartbeats") == [{"device_id": device.id}]


def test_empty_body_counts_as_a_heartbeat(device):
    assert post(device.token, b"").status == 200
    assert post(device.token, {}).status == 200
    assert call("GET", f"/v1/devices/{device.id}").json["online"]


def test_empty_texts_mean_no_fcm_token_and_no_ping(db, device):
    assert post(device.token, agent.heartbeat(fcm_token="", ping_request_id="")).status == 200
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": None}]


def test_base64_event_body_is_decoded(db, device):
    body = json.dumps(agent.heartbeat()).encode()
    handler, sent = event(
        "POST", "/v1/heartbeat", body, token=device.token, headers={"content-type": "application/octet-stream"}
    )
    assert sent["isBase64Encoded"]
    assert handler(sent, None)["statusCode"] == 200
    assert count(db) == 1


# --- refusals


@pytest.mark.parametrize("path", ["/v1/heartbeat", "/v1/heartbeats"])
def test_refusals_follow_the_contract(db, device, path):
    body = {"heartbeats": [agent.heartbeat()], **agent.heartbeat()}
    post(None, body, path).problem(403)
    post(None, body, path, headers={"authorization": "Basic abc"}).problem(403)
    post("not a token", body, path).problem(401)
    post(device.token + "x", body, path).problem(401)
    post(device.token, b" " * (1024 * 1024 + 1), path).problem(413)
    post(device.token, [body], path).problem(422)
    call("DELETE", f"/v1/devices/{device.id}")
    gone = post(device.token, body, path).problem(410)
    assert gone["reason"] == "device_deleted"
    assert count(db) == 0


def test_body_of_1_mib_is_accepted(device):
    body = json.dumps(agent.heartbeat()).encode()
    assert post(device.token, body + b" " * (1024 * 1024 - len(body))).status == 200


# --- batches


def test_each_item_gets_its_own_result_in_order(db, device):
    start = an_hour_ago()
    answer = batch(
        device.token,
        agent.heartbeat(start),
        agent.heartbeat(start + timedelta(seconds=3)),
        agent.heartbeat(start + 2 * MINUTE, battery={"pct": "full"}),
        "no heartbeat",
        agent.heartbeat(start + MINUTE),
        None,
        agent.heartbeat(start),
        agent.heartbeat(timestamp_utc="yesterday"),
        agent.heartbeat(start - MINUTE),
    )
    assert answer.status == 200
    results = answer.json["results"]
    assert [result["status"] for result in results] == [
        "created",
        "duplicate",
        "created",
        "rejected",
        "created",
        "rejected",
        "duplicate",
        "created",
        "created",
    ]
    reasons = {n: result["error"] for n, result in enumerate(results) if "error" in result}
    assert {n: reason.split(":")[0] for n, reason in reasons.items()} == {
        3: "$.heartbeats[3]",
        5: "$.heartbeats[5]",
    }
    assert answer.json["next_heartbeat_seconds"] == 600
    assert answer.json["pending_commands"] == []
    assert count(db) == 5


def test_batch_of_500_is_accepted_and_501_refused(db, device):
    start = datetime.now(UTC) - timedelta(hours=24)
    queue = [agent.heartbeat(start + n * timedelta(seconds=170)) for n in range(501)]
    batch(device.token, *queue).problem(422, "$.heartbeats")
    assert count(db) == 0
    answer = batch(device.token, *queue[:500])
    assert [result["status"] for result in answer.json["results"]] == ["created"] * 500
    assert count(db) == 500
    again = batch(device.token, *queue[:500])
    assert [result["status"] for result in again.json["results"]] == ["duplicate"] * 500


def test_500_heartbeats_of_the_agent_fit_into_one_body():
    assert len(json.dumps({"heartbeats": [agent.heartbeat()] * 500})) < 1024 * 1024


def test_empty_batch_and_batch_of_invalid_items_are_accepted(db, device):
    assert batch(device.token).json["results"] == []
    assert [r["status"] for r in batch(device.token, 1, []).json["results"]] == ["rejected", "rejected"]
    assert count(db) == 0


def test_batch_without_its_list_is_refused(device):
    post(device.token, {}, "/v1/heartbeats").problem(422)
    post(device.token, {"heartbeats": None}, "/v1/heartbeats").problem(422, "$.heartbeats")


# --- H1 with separate processes


RACER = textwrap.dedent("""
    import json, sys
    from nexmdm.runtime import database
    from tests.support.api import call
    database.connection().execute("SELECT 1")
    print("ready", flush=True)
    work = json.loads(sys.stdin.readline())
    print(json.dumps([call("POST", "/v1/heartbeat", body, token=work["token"]).status for body in work["bodies"]]))
""")


def test_racing_environments_make_one_row_per_bucket(db, device):
    start = an_hour_ago()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER],
            cwd=ROOT,
            env={**os.environ, "POWERTOOLS_LOG_LEVEL": "CRITICAL"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 6
    for n, racer in enumerate(racers):
        bodies = [agent.heartbeat(start + timedelta(milliseconds=100 * m + n)) for m in range(12)]
        racer.stdin.write(json.dumps({"token": device.token, "bodies": bodies}) + "\n")
        racer.stdin.flush()
    answers = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    assert answers == [[200] * 12] * 6
    assert count(db) == 1


# --- H2: one round trip


def test_heartbeat_is_one_statement(line, device):
    assert post(device.token).status == 200  # connects
    body = agent.heartbeat(fcm_token="another", ping_request_id="of a ping", system={"android_version": "15"})
    same = agent.heartbeat()
    trips = {
        "new": lambda: post(device.token, same),
        "duplicate": lambda: post(device.token, same),
        "all that it may change": lambda: post(device.token, body),
        "older": lambda: post(device.token, agent.heartbeat(an_hour_ago())),
        "wrong token": lambda: post("wrong"),
    }
    for what, trip in trips.items():
        del line.sent[:]
        assert trip().status == (401 if what == "wrong token" else 200)
        assert line.sent == ["Q"], what
    assert line.connections == 1


def test_batch_is_one_statement(line, device):
    assert post(device.token).status == 200
    queue = [agent.heartbeat(an_hour_ago() + n * MINUTE) for n in range(50)]
    for _ in range(2):
        del line.sent[:]
        assert batch(device.token, *queue).status == 200
        assert [sent for sent in line.sent if sent != "X"] == ["Q"]


def test_connection_is_closed_after_a_statement_that_pins_it(line, device):
    """RDS Proxy pins a session at a statement over 16 KB; a pinned session serves no other client until it closes."""
    post(device.token)
    assert batch(device.token, *[agent.heartbeat(an_hour_ago() + n * MINUTE) for n in range(50)]).status == 200
    assert post(device.token).status == 200
    assert line.connections == 2


def test_largest_heartbeat_does_not_pin_a_connection(line, device):
    names = dict.fromkeys(("android_version", "build_id", "model", "manufacturer"), "x" * 200)
    post(device.token)
    body = agent.heartbeat(fcm_token="t" * 2600, system=names, network={"transport": "t" * 50, "ip": "x" * 200})
    assert post(device.token, body).status == 200
    assert post(device.token).status == 200
    assert line.connections == 1


# --- O1: an outage is a 503 and never a 401


def unavailable(answer) -> None:
    answer.problem(503)
    assert int(answer.headers["retry-after"]) > 0


def test_cut_connection_is_not_noticed(line, device):
    post(device.token)
    line.cut()
    assert post(device.token).status == 200


def test_heartbeat_is_repeated_after_a_lost_database_response(line, db, device):
    """The statement was committed but its response lost: it runs again and finds its own row."""
    post(device.token)
    line.lose_answers()
    answer = post(device.token, agent.heartbeat(an_hour_ago()))
    assert (answer.status, answer.json["status"]) == (200, "duplicate")
    assert count(db) == 2


def test_unreachable_database_returns_503_until_it_is_back(url, device, monkeypatch):
    with relay(url) as line:
        monkeypatch.setenv("DATABASE_URL", line.url)
        settings.load.cache_clear()
        database.connection.cache_clear()
        assert post(device.token).status == 200
        port = line.port
    unavailable(post(device.token))
    unavailable(batch(device.token, agent.heartbeat()))
    unavailable(post("wrong token"))
    with relay(url, port):
        assert post(device.token).status == 200
        post("wrong token").problem(401)
        database.connection().close()


def test_terminated_backend_is_not_noticed(db, device):
    post(device.token)
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    db.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
    assert post(device.token).status == 200


@pytest.mark.parametrize("code", ["53100", "53200", "57014", "55P03", "58030", "XX001"])
def test_failing_database_returns_503(db, device, code):
    """Disk full, out of memory, timeouts, an I/O error, a corrupted page."""
    db.execute(f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$""")
    db.execute("CREATE TRIGGER refuse BEFORE INSERT ON device_heartbeats FOR EACH ROW EXECUTE FUNCTION refuse()")
    unavailable(post(device.token))
    db.execute("DROP TRIGGER refuse ON device_heartbeats")
    assert post(device.token).status == 200
    assert count(db) == 1
