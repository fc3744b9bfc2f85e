"""hypothesis on the parsers: only problems below 500, no hang, and bounded memory. FUZZ_EXAMPLES scales it."""

import base64
import json
import resource
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nexmdm.heartbeats.body import HeartbeatBody

from tests.support import samples
from tests.support.builds import sample
from tests.system.fuzz.targets import APKS, BODIES, SIGNED, TARGETS

SUITE_EXAMPLES = 200
MOST_MEGABYTES = 100  # that one input may add to the peak memory of the process

# Values at the edges of what JSON, Python, msgspec and PostgreSQL treat as equal.
ODD = st.sampled_from(
    [
        *(0, -1, 2**31, -(2**31) - 1, 2**63, 2**64, 10**400, 1e308, 5e-324, -0.0, 85.0, 85.5, "85", "NaN", "1e5"),
        *("", "null", "true", "\x00", "\u2028", "ﬀ", "a" * 5000, "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"),
        *("9999-12-31T23:59:59.999999-23:59", "2026-02-30T00:00:00Z", [], {}, [[]], {"": None}, None, True, False),
    ]
)
INSTANTS = st.sampled_from(
    [
        *("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "2026-02-30T00:00:00Z", 0, 1e18),
        *("9999-12-31T23:59:59.999999-23:59", "2016-12-31T23:59:60Z", "20260101T000000Z", -1, "-1", "1e30"),
    ]
)
CHANGES = st.sampled_from([0, 1, 1, 6])  # more changes would often hide each other
NAMES = st.sampled_from(sorted({name for body in BODIES for name in body.__struct_fields__}))
OF_A_HEARTBEAT = st.sampled_from(HeartbeatBody.__struct_fields__)
VALUES = st.recursive(
    ODD | st.text(max_size=20) | st.integers() | st.floats(allow_nan=True) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
SAMPLES = [json.loads(body) for name in samples.files() if (body := samples.load(name).get("body"))]


@st.composite
def documents(draw: st.DrawFn, names: st.SearchStrategy[str] = NAMES) -> bytes:
    """A sample's body with some members changed, or any document; sometimes truncated or with one byte changed."""
    document = dict(draw(st.sampled_from(SAMPLES))) | draw(st.dictionaries(names, ODD | VALUES, max_size=draw(CHANGES)))
    if draw(st.booleans()):
        document["timestamp_utc"] = draw(INSTANTS)
    kind = draw(st.integers(0, 9))
    text = json.dumps(draw(VALUES) if kind == 0 else document, ensure_ascii=draw(st.booleans()))
    content = bytearray(text.encode(errors="surrogatepass"))
    if content and kind == 1:
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))]) if kind == 2 else bytes(content)


@st.composite
def keys(draw: st.DrawFn) -> bytes:
    parts = json.dumps(draw(st.lists(VALUES, max_size=3) | VALUES)).encode()
    return draw(st.just(base64.urlsafe_b64encode(parts).rstrip(b"=")) | st.binary(max_size=60))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A sample that is truncated, extended, or has a part moved."""
    content = draw(st.sampled_from(APKS))
    at, length = draw(st.integers(0, len(content))), draw(st.integers(0, 200))
    return content[:at] + draw(st.binary(max_size=40)) + content[at + length :]


# In the format of `targets.mutated_apks`; small numbers are lengths that end slightly early or late.
CHANGE = st.builds(
    lambda region, place, value: bytes([region]) + place.to_bytes(2) + value,
    st.integers(0, 7),
    st.integers(0, 2**16 - 1),
    st.integers(0, 64).map(lambda number: number.to_bytes(4, "little")) | st.binary(min_size=4, max_size=4),
)
MUTATIONS = st.builds(
    lambda sample, changes: bytes([sample]) + b"".join(changes),
    st.integers(0, len(APKS) - 1),
    st.lists(CHANGE, min_size=1, max_size=4),
)
HEADER_NAMES = ["authorization", "x-device-token", "host", "cookie", "content-type", "idempotency-key"]
HEADERS = st.builds("{}: {}".format, st.sampled_from(HEADER_NAMES), st.text(max_size=60)) | st.sampled_from(
    [
        SIGNED,
        f"{SIGNED}\nhost: x",
        "content-type: application/json",
        "content-type: application/octet-stream",
    ]
)
REQUESTS = st.builds(
    lambda target, headers, body: "\n".join([target, *headers, "", ""]).encode("latin-1", "replace") + body,
    st.text(max_size=40) | st.sampled_from(["/%00?limit=%00", "/1?limit=1&limit=2&cursor=%F0", "/9999999999?=&&x"]),
    st.lists(HEADERS, max_size=4),
    documents(),
)
SELECTORS = st.lists(
    st.sampled_from(
        ["a", "b1", " in ", "notin", "=", "==", "!=", "!", "(", ")", ",", "<", ">", " ", "7", "-", "A", "é"]
    ),
    max_size=20,
).map(lambda pieces: "".join(pieces).encode())

INPUTS: dict[str, st.SearchStrategy[bytes]] = {
    "bodies": documents(),
    "heartbeats": documents(OF_A_HEARTBEAT),
    "parameters": documents(),
    "cursors": keys(),
    "apks": files(),
    "mutated_apks": MUTATIONS,
    "events": REQUESTS,
    "label_selectors": SELECTORS,
}


def megabytes() -> float:
    """The peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_any_input_is_read_or_refused(name: str, scale: int | None, tried: list[str]):
    target, count = TARGETS[name], 0

    @given(INPUTS[name])
    @settings(
        max_examples=scale * 20 if scale else SUITE_EXAMPLES,
        derandomize=scale is None,
        suppress_health_check=list(HealthCheck),
    )
    def holds(data: bytes) -> None:
        nonlocal count
        count += 1
        target(data)

    holds()
    tried.append(f"hypothesis: {count} inputs to {name}")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *((name, b"[" * 100_000) for name in ("bodies", "heartbeats", "parameters")),
        *((name, b'{"a":' * 50_000 + b"1" + b"}" * 50_000) for name in ("bodies", "heartbeats", "parameters")),
        ("bodies", b'{"x": ' + b"9" * 1_000_000 + b"}"),
        ("bodies", b'{"x": 1e999999999}'),
        ("bodies", b'"' + b"\\u0000" * 170_000 + b'"'),
        ("cursors", base64.urlsafe_b64encode(b"[" * 1400)),
        ("cursors", base64.urlsafe_b64encode(b'["0001-01-01T00:00:00+23:59"]')),
        ("cursors", base64.urlsafe_b64encode(b"[1e400]")),
        ("cursors", base64.urlsafe_b64encode(b"[" + b"9" * 1400 + b"]")),
        ("label_selectors", b"a in (" + b"x," * 2_000),
        ("label_selectors", b"!" * 100_000),
        ("apks", b""),
        ("apks", b"PK\x05\x06" * 20_000),
        ("apks", sample("agent-2") * 50),
        ("events", b"/" + b"%F0" * 5_000 + b"?" + b"a=1&" * 5_000),
        *(("events", f"{target}\n{SIGNED}\nhost: {host}\n\n{{}}".encode()) for target in "/[" for host in "[]x"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_input_is_refused(name: str, data: bytes):
    before = megabytes()
    TARGETS[name](data)
    assert megabytes() - before < MOST_MEGABYTES


def test_targets_report_an_unexpected_error(monkeypatch: pytest.MonkeyPatch):
    """Shows that the targets can fail: with a parser that raises an unexpected error, each of them reports it."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("of the inside")

    monkeypatch.setattr("nexmdm.runtime.validation.convert", broken)
    monkeypatch.setattr("nexmdm.runtime.lenient.item", broken)
    finds: list[Callable[[bytes], None]] = [TARGETS[name] for name in ("bodies", "heartbeats", "cursors", "parameters")]
    for target in finds:
        with pytest.raises(RuntimeError):
            target(b"{}")
