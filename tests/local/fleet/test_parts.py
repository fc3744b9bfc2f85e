"""Devices against a server that answers as it is told: what they send is what the agent sends."""

import asyncio
import hashlib
import hmac
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from local.fleet import outbox
from local.fleet.body import Phone, timestamp
from local.fleet.commands import Commands
from local.fleet.fleet import Fleet
from local.fleet.ledger import Ledger
from local.fleet.outbox import Item, Outbox
from local.fleet.pace import Pace

QUICK = Pace(interval=0.05, backoff_scale=0.001, duplicate_share=0, offline_share=0)


class Server:
    """Records every request; `answer` decides (status, document) and may be replaced."""

    def __init__(self):
        self.requests = []
        self.answer = self.good
        self._lock = threading.Lock()

    def good(self, method, path, headers, body):
        if path.startswith("/v1/register"):
            return 200, {"device_token": f"token-{len(self.to('/v1/register'))}", "device_id": "an-id"}
        if path == "/v1/heartbeats":
            return 200, {"results": [{"status": "created"}] * len(body["heartbeats"])}
        return 200, {"ok": True, "status": "created"}

    def handle(self, method, path, headers, body):
        with self._lock:
            self.requests.append((path, headers, body))
        return self.answer(method, path, headers, body)

    def to(self, path):
        return [request for request in self.requests if request[0].startswith(path)]


@pytest.fixture
def server():
    double = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, document = double.handle("POST", self.path, headers, json.loads(content) if content else None)
            answer = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    double.url = f"http://127.0.0.1:{httpd.server_port}"
    yield double
    httpd.shutdown()
    httpd.server_close()


async def tokens_for(aliases):
    return {alias: f"enrol-{alias}" for alias in aliases}


def run(server, until, count=1, pace=QUICK, after=None, **options):
    """Run a fleet until `until(fleet)`; returns it."""

    async def main():
        fleet = Fleet(server.url, count, tokens_for, pace, **options)
        running = asyncio.create_task(fleet.run())
        async with asyncio.timeout(20):
            while not until(fleet):
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if after:
            await after(fleet)
        await fleet.close()
        return fleet

    return asyncio.run(main())


def test_registration_has_the_agents_headers(server):
    run(server, lambda fleet: len(server.to("/v1/devices/fcm-token")) == 12, count=12)
    registrations = server.to("/v1/register")
    by_adb = [r for r in registrations if "x-admin-key" in r[1]]
    by_qr_code = [r for r in registrations if "x-admin" in r[1]]
    assert by_adb
    assert by_qr_code
    for path, headers, body in by_adb:
        assert (path, headers["x-admin-key"], list(body)) == ("/v1/register", f"enrol-{body['alias']}", ["alias"])
    for path, headers, body in by_qr_code:
        assert (path, body) == (f"/v1/register?alias={headers['x-admin'].removeprefix('enrol-')}", None)


def test_a_heartbeat_is_the_agents(server):
    run(server, lambda fleet: len(server.to("/v1/heartbeat")) >= 40)
    _, headers, body = server.to("/v1/heartbeat")[0]
    assert headers["authorization"].startswith("Bearer token-")
    required = {"device_id", "alias", "app_version", "timestamp_utc", "app_versions", "speedtest_running_signals"}
    assert required | {"battery", "system", "memory", "network"} <= body.keys()
    bodies = [body for _, _, body in server.to("/v1/heartbeat")]
    assert "null" not in json.dumps(bodies)
    assert {type(body["battery"]["pct"]) for body in bodies} == {int, float}
    assert all(float(body["battery"]["pct"]).is_integer() for body in bodies)
    assert all(body["timestamp_utc"].endswith("Z") for body in bodies)


def test_what_fails_is_tried_again_with_the_same_content(server):
    failures = iter([500, 503, 422, 410])

    def answer(method, path, headers, body):
        status = next(failures, 200) if path == "/v1/heartbeat" else 200
        return (status, {}) if status != 200 else server.good(method, path, headers, body)

    server.answer = answer
    fleet = run(server, lambda fleet: fleet.ledger.accepted >= 5)
    first = server.to("/v1/heartbeat")[0][2]
    assert [body for _, _, body in server.to("/v1/heartbeat")].count(first) >= 2
    assert (fleet.ledger.server_errors, fleet.ledger.rejected) == (2, 2)


def test_five_refusals_in_a_row_and_the_device_enrols_again(server):
    def answer(method, path, headers, body):
        if headers.get("authorization") == "Bearer token-1":
            return 401, {}
        return server.good(method, path, headers, body)

    server.answer = answer
    fleet = run(server, lambda fleet: fleet.ledger.accepted)
    assert len(server.to("/v1/register")) == 2
    assert fleet.ledger.wiped == 1
    refused = [r for r in server.requests if r[1].get("authorization") == "Bearer token-1"]
    assert len(refused) == 5


def test_a_lost_enrolment_answer_is_asked_for_with_the_same_token(server):
    answers = iter([503, 503])

    def answer(*request):
        status = next(answers, 200)
        return server.good(*request) if status == 200 else (status, {})

    server.answer = answer
    run(server, lambda fleet: fleet.device_ids)
    tokens = {headers.get("x-admin-key") or headers.get("x-admin") for _, headers, _ in server.to("/v1/register")}
    assert len(server.to("/v1/register")) == 3
    assert len(tokens) == 1


def test_some_heartbeats_are_sent_twice_at_once(server):
    pace = Pace(interval=0.05, duplicate_share=1, offline_share=0)
    fleet = run(server, lambda fleet: fleet.ledger.accepted >= 6, pace=pace)
    bodies = [json.dumps(body) for _, _, body in server.to("/v1/heartbeat")]
    assert bodies[0] == bodies[1]
    assert fleet.ledger.duplicated >= 3


def test_a_queue_is_drained_in_one_batch_when_the_network_is_back(server):
    pace = Pace(interval=0.02, backoff_scale=0.01, duplicate_share=0, offline_share=0.2, batch_share=1)
    run(server, lambda fleet: server.to("/v1/heartbeats") and fleet.ledger.accepted > 1, pace=pace)
    assert len(server.to("/v1/heartbeats")[0][2]["heartbeats"]) > 1


def test_what_is_left_is_sent_before_the_end(server):
    left = []
    server.answer = lambda *request: server.good(*request) if request[1] != "/v1/heartbeat" else (503, {})

    async def after(fleet):
        server.answer = server.good
        left.append(await fleet.drain(10))

    fleet = run(server, lambda fleet: len(server.to("/v1/heartbeat")) > 3, after=after)
    assert left == [0]
    assert fleet.ledger.accepted
    assert fleet.ledger.uncertain_buckets == 0


def test_credentials_outlive_the_run(server, tmp_path):
    keep = tmp_path / "state" / "fleet.json"
    run(server, lambda fleet: fleet.ledger.accepted, count=3, keep=keep)
    run(server, lambda fleet: fleet.ledger.accepted, count=3, keep=keep)
    assert len(server.to("/v1/register")) == 3
    assert keep.stat().st_mode & 0o077 == 0


# --- its parts


def test_the_outbox_has_the_agents_limits(monkeypatch):
    box = Outbox()
    ack = Item("/v1/action-result", b"{}")
    heartbeats = [Item("/v1/heartbeat", b"x" * 100, taken_at=1.0) for _ in range(outbox.MOST_ITEMS)]
    assert box.add(ack) == []
    dropped = [item for heartbeat in heartbeats for item in box.add(heartbeat)]
    assert dropped == heartbeats[:1]
    assert len(box) == outbox.MOST_ITEMS
    assert box.due() is ack
    large = Item("/v1/heartbeat", b"x" * outbox.MOST_BYTES, taken_at=1.0)
    assert large in box.add(large)
    monkeypatch.setattr(outbox, "LONGEST_AGE", -1)
    assert ack in box.add(Item("/v1/heartbeat", b"", taken_at=1.0))


def test_pauses_double_up_to_five_minutes():
    rng = random.Random(1)
    for attempts, seconds in [(1, 2), (2, 4), (5, 32), (8, 256), (9, 300), (40, 300)]:
        assert seconds <= outbox.pause(attempts, rng) <= seconds * 1.25


def test_the_ledger_counts_buckets_once_and_lost_answers_apart():
    ledger = Ledger(bucket_seconds=10, started=1000.0)
    assert ledger.since == 1010
    now = ledger.since = ledger.bucket(time.time())
    for taken_at in (now, now + 9.9, now + 10):
        ledger.heartbeat_uncertain("a", taken_at)
        ledger.heartbeat_accepted("a", taken_at, duplicate=taken_at == now + 9.9)
    ledger.heartbeat_uncertain("b", now)
    ledger.heartbeat_accepted("c", now - 10, duplicate=False)
    assert (ledger.distinct_buckets, ledger.uncertain_buckets) == (2, 1)
    assert (ledger.accepted, ledger.deduplicated) == (4, 1)


# --- messages


KEY = "the-key"


def message(action, request_id="r-1", key=KEY, seconds=0, signed="", **parameters):
    ts = timestamp(time.time() + seconds)
    text = f"{request_id}|an-id|{action}|{ts}{signed}"
    mac = hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {"action": action, "request_id": request_id, "ts": ts, "hmac": mac, "device_id": "an-id", **parameters}


def received(*messages, keys=(KEY,)):
    """What a device sends after these messages, and its ledger."""
    sent, ledger = [], Ledger()

    async def main():
        commands = Commands(
            lambda path, body, header="Authorization": sent.append((path, body, header)),
            lambda request_id: sent.append(("ping", request_id, None)),
            ledger,
            keys,
        )
        for data in messages:
            commands.receive("an-id", data)

    asyncio.run(main())
    return sent, ledger


def test_reports_go_the_agents_ways():
    shell = message("remote_exec_shell", "r-4", signed="|command:id", command="id", exec_id="e", correlation_id="c")
    ping, ring = message("ping", "r-1"), message("ring", "r-2", duration="5")
    sent, ledger = received(ping, ring, message("launch_app", "r-3"), shell, message("reboot", "r-5"))
    assert sent[0] == ("ping", "r-1", None)
    assert (sent[1][0], sent[1][1]["type"]) == ("/v1/devices/an-id/ack", "RING_STARTED")
    assert (sent[2][1]["type"], sent[2][1]["correlation_id"]) == ("LAUNCH_APP_ACK", "r-3")
    assert (sent[3][0], sent[3][2], sent[3][1]["exec_id"]) == ("/v1/remote-exec/ack", "X-Device-Token", "e")
    assert (sent[4][0], sent[4][1]["request_id"]) == ("/v1/action-result", "r-5")
    assert len(ledger.ran) == 5


def test_a_request_id_runs_once():
    sent, ledger = received(message("reboot"), message("reboot"))
    assert len(sent) == 1
    assert ledger.messages_repeated == 1


@pytest.mark.parametrize(
    "data",
    [
        lambda: message("reboot", key="another"),
        lambda: message("reboot", seconds=-310),
        lambda: message("reboot", seconds=310),
        lambda: {**message("reboot"), "action": "wake"},
        lambda: {**message("reboot"), "ts": "yesterday"},
        lambda: message("remote_exec_shell", command="id"),
        lambda: {**message("reboot"), "hmac": ""},
    ],
)
def test_forged_and_stale_messages_are_dropped(data):
    sent, ledger = received(data())
    assert sent == []
    assert ledger.messages_refused == 1


def test_either_key_will_do_and_without_one_nothing_is_checked():
    assert received(message("reboot"), keys=("new", KEY))[0]
    assert received({"action": "reboot", "request_id": "r"}, keys=())[0]


def test_the_servers_messages_pass_the_devices_check():
    from nexmdm import messages

    parameters = {"type": "set_dnd", "enable": True, "duration": None}
    for action, payload in [("ring", {"duration": 5}), ("remote_exec_fcm", parameters)]:
        dispatch = {"request_id": "r", "device_id": "an-id", "action": action, "payload": payload, "secrets": None}
        data = messages.build(dispatch, KEY)
        _, ledger = received(data)
        assert (ledger.messages_refused, ledger.messages) == (0, 1), data


def test_a_phone_answers_a_ping():
    body = Phone("a", random.Random(1)).heartbeat("an-id", "a-token", 0, ping_request_id="r-1")
    assert (body["is_ping_response"], body["ping_request_id"], body["fcm_token"]) == (True, "r-1", "a-token")
