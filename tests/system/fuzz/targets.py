"""The parsers, each as a function of bytes that returns or raises a problem below 500. Anything else is a finding.

hypothesis (`test_parsers`) drives them with plausible documents, atheris (`coverage`) with any input that reaches new
code.
"""

import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from nexmdm.builds.publishing import number
from nexmdm.commands import actions
from nexmdm.commands.message import Content, check_size
from nexmdm.devices import selectors
from nexmdm.enrollment import rate_limit
from nexmdm.heartbeats import body as reported
from nexmdm.heartbeats.body import HeartbeatBody
from nexmdm.runtime import lenient, problems, validation
from nexmdm.runtime.errors import Problem
from nexmdm.runtime.http import Request, Routes
from nexmdm.runtime.pagination import PageQuery

from functions.apk_builds import apk_file, apk_manifest, apk_signature
from local import template
from local.gateway import payload, signature
from local.gateway.signature import KeyPair
from local.openapi.operations import operations
from tests.support import label_selectors as reference_selectors
from tests.support.api import CONTEXT
from tests.support.builds import SAMPLES

BODIES = sorted({o.body for o in operations().values() if o.body}, key=lambda type_: str(type_))
QUERIES = sorted({o.query for o in operations().values() if o.query}, key=lambda type_: str(type_))
KEYS = KeyPair("AKIAOFTHEFUZZ", "secret")
# Two headers that look like a signature but are none.
SIGNED = (
    "authorization: AWS4-HMAC-SHA256 Credential=AKIAOFTHEFUZZ/20260101/eu-west-1/execute-api/aws4_request,"
    f" SignedHeaders=host;x-amz-date, Signature={'0' * 64}\nx-amz-date: 20260101T000000Z"
)
APKS = [path.read_bytes() for path in sorted(SAMPLES.glob("*.apk"))]


def refused(function: Callable[[], Any]) -> Any:
    """The result, or the problem that was raised, which must be the caller's fault."""
    try:
        return function()
    except Problem as problem:
        said = problem
    assert 400 <= said.status < 500, said
    assert said.detail
    document = said.document()
    assert msgspec.json.decode(msgspec.json.encode(document), type=problems.Problem) == document
    return said


def bodies(data: bytes) -> None:
    """One document as the body of every route; an accepted one can be serialized again."""
    document = refused(lambda: validation.parse(data))
    if isinstance(document, Problem):
        return
    for type_ in BODIES:
        taken = refused(lambda type_=type_: validation.convert(document, type_))
        if not isinstance(taken, Problem):
            msgspec.json.encode(taken)


def heartbeats(data: bytes) -> None:
    """An accepted heartbeat becomes a row within the columns' limits, as JSON that PostgreSQL can read."""
    reading = refused(lambda: lenient.read(data, HeartbeatBody))
    if isinstance(reading, Problem):
        return
    report = reported.report(reading.value, "io.unitynodes.unityapp", list(reading.dropped))
    values = report.values
    assert values.get("battery_pct") is None or 0 <= values["battery_pct"] <= 100
    assert report.device_ts is None or report.device_ts.tzinfo is UTC
    for name in ("ram_used_mb", "queue_depth", "sdk_int", "signal_dbm"):
        assert values.get(name) is None or -(2**31) <= values[name] < 2**31
    assert b"\\u0000" not in msgspec.json.encode(values)


def cursors(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    for types in ((str,), (datetime,), (int,), (datetime, str)):
        key = refused(lambda types=types: validation.convert({"cursor": text}, PageQuery).after(*types))
        assert isinstance(key, Problem) or [type(part) for part in key] in ([*types], [type(None)] * len(types))


def parameters(data: bytes) -> None:
    """Parameters of every action; accepted ones fit into a message or are refused for their size."""
    document = refused(lambda: validation.parse(data))
    if not isinstance(document, dict):
        return
    for action in actions.ACTIONS:
        taken = refused(lambda action=action: actions.parameters(action, document))
        if not isinstance(taken, Problem):
            content = Content(request_id="r", device_id="d", action=action, payload=taken)
            refused(lambda content=content: check_size(content))


def apks(data: bytes) -> None:
    """A whole APK, and its parts separately, because an early refusal would hide the later parts."""
    apk = refused(lambda: apk_file.parse(memoryview(data)))
    if not isinstance(apk, Problem):
        refused(lambda: apk_signature.verify(apk))
        apk_file.content_digests(apk, ("sha256",))
        refused(lambda: apk_manifest.read(apk))


def mutated_apks(data: bytes) -> None:
    """A signed sample changed by four bytes at a time. The first byte chooses the sample. Each change has seven bytes:
    one of flags (1: at a length or an offset instead of anywhere; 4: add a small number instead of replacing), two for
    the place, and four for the new content."""
    if not data:
        return
    content = bytearray(APKS[data[0] % len(APKS)])
    telling = _length_positions(bytes(content))
    for at in range(1, len(data) - 6, 7):
        number = int.from_bytes(data[at + 1 : at + 3])
        place = telling[number % len(telling)] if data[at] & 1 else number % len(content)
        value = data[at + 3 : at + 7]
        if data[at] & 4:
            little = int.from_bytes(content[place : place + 4], "little") + value[0] % 32 - 16
            value = (little % 2**32).to_bytes(4, "little")
        content[place : place + 4] = value
    apks(bytes(content))


@functools.cache
def _length_positions(content: bytes) -> list[int]:
    """The positions of the lengths in the signing block, and of the offsets in the end record."""
    end = content.rfind(b"PK\x05\x06")
    try:
        apk = apk_file.parse(memoryview(content))
    except Problem:
        return list(range(end, len(content) - 4))
    places, at = list(range(apk.block_start, apk.block_start + 8)), apk.block_start + 8
    for _, value in apk.pairs:
        places += [*[at] * 60, *range(at, at + 60)]
        at += 12 + len(value)
    return [*places, *range(apk.directory_start - 24, apk.directory_start + 46), *range(end, len(content) - 4)]


def events(data: bytes) -> None:
    """A whole request: how the gateway reads it, and how nexmdm.runtime.http does."""
    head, _, body = data.partition(b"\n\n")
    lines = head.decode("latin-1").split("\n")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    target, _, query = lines[0].partition("?")
    request = payload.Request("POST", target, query, headers, body)
    assert signature.caller(request, KEYS, datetime(2026, 1, 1, tzinfo=UTC)) is None
    event = payload.event(request, _ROUTE, {"name": request.path}, None)
    answer = _routes.handle(json.loads(json.dumps(event)), CONTEXT)
    assert answer["statusCode"] < 500, answer
    assert payload.response(answer) is not None


_routes = Routes()
_ROUTE = template.Route("POST", "/{name}", template.load().function("fleet"), "NONE")


@_routes(_ROUTE.key)
def _everything(request: Request) -> dict[str, Any]:
    """Read everything that a handler can read of a request."""
    seen = {"bearer": request.bearer, "ip": rate_limit.source(request.source_ip)}
    seen["number"] = number(request.path["name"])
    for type_ in QUERIES:
        refused(lambda type_=type_: request.parameters(type_))
    refused(lambda: request.device_token)
    refused(lambda: request.operator)
    return seen | {"body": request.json(dict[str, Any])}


def label_selectors(data: bytes) -> None:
    """A selector is read or refused as in Kubernetes; a refusal points into the text."""
    text = data.decode(errors="replace")
    found = refused(lambda: selectors.parse(text))
    if isinstance(found, Problem):
        assert 1 <= found.members["errors"][0].column <= len(text) + 1
        if len(text) > selectors.MAX_CHARACTERS:
            return
    try:
        wanted = len(reference_selectors.parse(text))
    except reference_selectors.Refused:
        wanted = 0
    # None is not a selector here; to Kubernetes it means every device.
    assert wanted == (0 if isinstance(found, Problem) else len(found)), text


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (bodies, heartbeats, cursors, parameters, apks, mutated_apks, events, label_selectors)
}
