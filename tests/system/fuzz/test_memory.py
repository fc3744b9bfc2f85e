"""The peak memory of a request with a hostile body.

The limit is 10 times the body plus 5 MB for JSON on device routes, with or without valid credentials, and 40 times the
body plus 5 MB for anything else.
"""

import json
import random
import tracemalloc

import pytest

from tests.support import agent
from tests.support.api import CONTEXT, call, enroll, event

pytestmark = pytest.mark.long

MIB = 1024 * 1024
SPARE = 5 * MIB


def filled(pattern: bytes, head: bytes, tail: bytes, size: int, separator: bytes = b",") -> bytes:
    """Repeat `pattern` to fill the size between head and tail."""
    times = (size - len(head) - len(tail)) // (len(pattern) + len(separator))
    return head + separator.join([pattern] * times) + tail


HOSTILE = {
    "an unread list of empty objects": lambda size: filled(b'{"":0}', b'{"x":[', b"]}", size),
    "an unread list of numbers": lambda size: filled(b"0", b'{"x":[', b"]}", size),
    "an unread list of texts": lambda size: filled(b'""', b'{"x":[', b"]}", size),
    "an unread list of lists": lambda size: filled(b"[]", b'{"x":[', b"]}", size),
    "one key again and again": lambda size: filled(b'"a":0', b"{", b"}", size),
    "many keys": lambda size: b"{" + b",".join(b'"%06x":0' % n for n in range(size // 12)) + b"}",
    "long keys": lambda size: filled(b'"' + b"k" * 5000 + b'":0', b"{", b"}", size),
    "one long text": lambda size: b'{"app_version":"' + b"x" * (size - 30) + b'"}',
    "one long text with an emoji": lambda size: '{{"network":{{"ssid":"{}\U0001f600"}}}}'.format(
        "x" * (size - 60)
    ).encode(),
    "escapes": lambda size: b'{"network":{"ssid":"' + rb"\u00e9" * (size // 7) + b'"}}',
    "many apps": lambda size: (
        b'{"app_versions":{' + b",".join(b'"a%05x":{}' % n for n in range(size // 12 - 9)) + b"}}"
    ),
    "apps that are numbers": lambda size: filled(b'"a":0', b'{"app_versions":{', b"}}", size),
    "deep": lambda size: filled(b"[" * 30 + b"]" * 30, b'{"x":[', b"]}", size),
    "a number of many digits": lambda size: b'{"queue_depth":' + b"9" * (size - 20) + b"}",
    "more heartbeats than are taken": lambda size: filled(b"0", b'{"heartbeats":[', b"]}", size),
    "500 heartbeats": lambda size: filled(b'{"x":"' + b"y" * (size // 520) + b'"}', b'{"heartbeats":[', b"]}", size),
}
LARGEST = ("an unread list of empty objects", "many apps", "many keys")
NO_JSON = {
    "NaN": lambda size: filled(b"NaN", b'{"x":[', b"]}", size),
    "halves of pairs": lambda size: filled(rb'"\ud800"', b'{"x":[', b"]}", size),
    "no UTF-8": lambda size: b'{"network":{"ssid":"' + b"\xff" * (size - 40) + b'"}}',
    "quotes": lambda size: b'{"x":"' + b'\\"' * (size // 2 - 10),
    "bare control characters": lambda size: b'{"network":{"ssid":"' + b"\x01" * (size - 40) + b'"}}',
    "half after half": lambda size: b'{"network":{"ssid":"' + rb"\ud800" * (size // 6 - 9) + b'"}}',
    "numbers out of range": lambda size: filled(b"1e999", b'{"x":[', b"]}", size),
    "brackets": lambda size: b"[" * size,
}
ROUTES = ["/v1/heartbeat", "/v1/heartbeats", "/v1/devices/fcm-token", "/v1/action-result", "/v1/remote-exec/ack"]


def peak(path: str, body: bytes, token: str | None) -> int:
    """The peak of allocated bytes during one request, whose event comes from the gateway."""
    handler, given = event("POST", path, body, token=token)
    tracemalloc.start()
    try:
        assert handler(given, CONTEXT)["statusCode"] < 500
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def token(url: str) -> str:
    """The token of a device that has reported before, so that the measured call loads no module."""
    token = enroll()[1]
    assert call("POST", "/v1/heartbeat", agent.heartbeat(), token=token).status == 200
    return token


# 1 MiB is the most that the gateway passes on. It is tried with the kinds that take the most memory.
@pytest.mark.parametrize(
    ("kind", "size"),
    [*((kind, 60_000) for kind in HOSTILE), *((kind, MIB) for kind in LARGEST)],
    ids=str,
)
def test_json_on_device_routes_uses_at_most_10_times_its_size(token, kind, size):
    body = HOSTILE[kind](size)
    assert len(body) <= MIB
    strangers = [("/v1/heartbeat", "not a token"), ("/v1/action-result", None)]
    # The largest bodies take a while, and the routes share their readers: of a report, a queue of reports, a message.
    routes = ROUTES if size < MIB else ["/v1/heartbeat", "/v1/heartbeats", "/v1/action-result"]
    for path, credential in [*((path, token) for path in routes), *(strangers if size < MIB else [])]:
        found = peak(path, body, credential)
        assert found <= 10 * len(body) + SPARE, (path, credential, found / len(body))


@pytest.mark.parametrize("kind", NO_JSON)
def test_invalid_json_uses_at_most_40_times_its_size(token, kind):
    body = NO_JSON[kind](MIB // 8)
    for path in ROUTES[::2]:
        found = peak(path, body, token)
        assert found <= 40 * len(body) + SPARE, (path, found / len(body))


@pytest.mark.parametrize("kind", [*HOSTILE, *NO_JSON])
def test_operator_body_uses_at_most_40_times_its_size(token, kind):
    body = (HOSTILE | NO_JSON)[kind](MIB // 4)
    # All bodies are read in the same way, so each kind of body is tried on one route.
    path = ("/v1/enroll-tokens", "/v1/commands", "/v1/devices/import")[len(kind) % 3]
    found = peak(path, body, None)
    assert found <= 40 * len(body) + SPARE, (path, found / len(body))


def test_random_heartbeats_stay_within_the_limit(token):
    rng = random.Random(5)
    for _ in range(5):
        apps = {f"com.app{n}": {"version_code": rng.randrange(10**9)} for n in range(rng.randrange(0, 900))}
        unread = [rng.choice([{}, [], "", 0, None, {"": 0}]) for _ in range(rng.randrange(0, 60_000))]
        body = json.dumps(agent.heartbeat(app_versions=apps, unread=unread)).encode()
        found = peak("/v1/heartbeat", body, token)
        assert found <= 10 * len(body) + SPARE, found / len(body)
