"""Parse and validate bodies: strict JSON, then msgspec's types. Each error is a problem that names the path."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

from nexmdm.runtime.errors import Invalid, Malformed, TooLarge
from nexmdm.runtime.problems import FieldError

MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 32
T = TypeVar("T")

# A point in time, with its offset from UTC: RFC 3339.
Instant = Annotated[datetime, Meta(tz=True)]
# The name of a group, a schedule or an alert rule.
GivenName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(?![\s\S])")]

_AT = re.compile(r"^(?P<detail>.*?)(?: - at (?:`key` in )?`(?P<path>[^`]*)`)?$", re.DOTALL)
# Only escapes can bring a NUL or an unpaired surrogate into a parsed document.
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# A string, and one that the end cuts off: without it, the pattern would be retried at each later quote. Possessive
# quantifiers prevent backtracking.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_INNERMOST = re.compile(rb"\[,*\]")
_SQUARE = bytes.maketrans(b"{}", b"[]")
_CHUNK = 64 * 1024
_ECHOED = 100  # maximum characters of a key that a problem quotes


def parse(body: bytes) -> Any:
    """The JSON document of a body; an empty body is an empty object.

    Raises:
        TooLarge: more than 1 MiB.
        Malformed: not UTF-8, not JSON, NaN or Infinity, a duplicate key, nested deeper than 32, a number too long.
        Invalid: a string contains NUL or an unpaired surrogate, which PostgreSQL cannot store.
    """
    check_size_and_depth(body)
    if not body:
        return {}
    flaws: list[_Flaw] = []
    try:
        document = _decoder(flaws).decode(body.decode())
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not valid UTF-8 at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        raise Malformed(
            f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError:
        # int() rejects more than 4,300 digits.
        raise Malformed("The body holds a number that is too long.") from None
    if flaws and (found := _found(document, lambda value: isinstance(value, _Flaw))):
        path, flaw = found
        raise Malformed(f"{path}{flaw.at}: {flaw.detail}", errors=[FieldError(path=path + flaw.at, detail=flaw.detail)])
    if _SUSPECT_ESCAPE.search(body):
        found = _found(document, lambda value: isinstance(value, str) and UNSTORABLE.search(value) is not None)
        if found:
            storable(found[1], found[0])
    return document


def check_size_and_depth(body: bytes) -> None:
    """Reject a body that is over 1 MiB or nested deeper than 32, before it is parsed.

    Raises:
        TooLarge, Malformed.
    """
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"The body has {len(body)} bytes; the limit is {MAX_BODY_BYTES}. Split the request.")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper(body, MAX_DEPTH):
        raise Malformed(f"The body is nested deeper than {MAX_DEPTH}, or its brackets do not match.")


def longer(array: bytes, limit: int) -> bool:
    """Whether a JSON array, nested as `check_size_and_depth` allows, has more than `limit` items."""
    if array.count(b",") < limit:
        return False
    commas = _structure(array, b"[],")[1:-1]
    while b"[" in commas:
        before, commas = commas, _INNERMOST.sub(b"", commas)
        if commas == before:
            break
    return commas.count(b",") >= limit


def _deeper(body: bytes, limit: int) -> bool:
    """Whether brackets outside strings are nested deeper than `limit`. Also true for many unclosed brackets."""
    nested = _structure(body, b"[]")
    for _ in range(limit):
        # Each pass removes the innermost pairs.
        before, nested = len(nested), nested.replace(b"[]", b"")
        if len(nested) == before:
            break
    return bool(nested)


def _structure(body: bytes, kept: bytes) -> bytes:
    """The `kept` characters of a document outside strings, with braces replaced by brackets. Works in chunks, because
    removing the strings needs many times the memory of its input."""
    others = bytes(set(range(256)) - set(kept) - set(b"{}"))
    found, in_string, rest = bytearray(), False, b""
    for start in range(0, len(body), _CHUNK):
        chunk = rest + body[start : start + _CHUNK]
        begins = _REST_OF_STRING.match(chunk) if in_string else None
        if begins:
            in_string, chunk = not begins[1], chunk[begins.end() :]
        if not in_string:
            chunk, strings = _STRING.subn(rb"\1", chunk)
            in_string = chunk.count(b'"') < strings
        # An escape that continues in the next chunk.
        rest = b"\\" if in_string and chunk.endswith(b"\\") else b""
        found += chunk.translate(_SQUARE, others)
    return bytes(found)


def convert(document: Any, type_: type[T], root: str = "$") -> T:
    """The document as `type_`; strings are accepted for numbers and booleans. Instants with an offset are in UTC.

    Raises:
        Invalid: with the JSONPath of the first invalid field.
    """
    try:
        converted = msgspec.convert(document, type_, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _AT.match(text)
        path, detail = (found["path"], found["detail"]) if found else (None, text)
        raise Invalid((path or "$").replace("$", root, 1), detail.replace("`", "")) from None
    except ValueError:
        raise Invalid(f"{root}.{_beyond_9999(document, type_)}", "is after the year 9999 in UTC") from None
    if isinstance(converted, Struct):
        for field, name in zip(converted.__struct_fields__, converted.__struct_encode_fields__, strict=True):
            instant = getattr(converted, field)
            if isinstance(instant, datetime) and instant.tzinfo:
                structs.force_setattr(converted, field, in_utc(instant, f"{root}.{name}"))
    return converted


def _beyond_9999(document: Any, type_: Any) -> str:
    """The name of the instant that is a number beyond the year 9999: msgspec's error for it has no path."""
    for field in structs.fields(type_):
        try:
            msgspec.convert(document.get(field.encode_name), field.type, strict=False)
        except msgspec.ValidationError:
            continue
        except ValueError:
            return field.encode_name
    raise AssertionError("only a member of the document can be such an instant")


def in_utc(instant: datetime, path: str) -> datetime:
    """The same instant in UTC, because PostgreSQL refuses offsets of 16 hours and more.

    Raises:
        Invalid: it is before the year 1 or after 9999 there.
    """
    try:
        return instant.astimezone(UTC)
    except (OverflowError, ValueError):  # ValueError: without an offset, at the first or last hours
        raise Invalid(path, "is before the year 1 or after the year 9999 in UTC") from None


def storable(text: str, path: str) -> None:
    """Reject text that PostgreSQL cannot store."""
    if UNSTORABLE.search(text):
        raise Invalid(path, "contains a NUL character or an unpaired surrogate; remove it")


_NO_NUMBERS = {name: f"{name} is not a JSON number" for name in ("NaN", "Infinity", "-Infinity")}


class _Flaw:
    """A placeholder in a parsed document for something that is not valid JSON, so that its path can be reported."""

    __slots__ = ("at", "detail")

    def __init__(self, detail: str, at: str = "") -> None:
        self.detail, self.at = detail, at


def _decoder(flaws: list[_Flaw]) -> json.JSONDecoder:
    def flaw(detail: str, at: str = "") -> _Flaw:
        flaws.append(_Flaw(detail, at))
        return flaws[-1]

    def pairs(items: list[tuple[str, Any]]) -> Any:
        result = dict(items)
        if len(result) == len(items):
            return result
        times = Counter(name for name, _ in items)
        twice = next(name for name, n in times.items() if n > 1)
        return flaw("this key is given twice in one object", f".{twice[:100]}")

    def number(digits: str) -> Any:
        value = float(digits)
        return value if math.isfinite(value) else flaw(f"the number {digits[:30]} is out of range")

    return json.JSONDecoder(
        object_pairs_hook=pairs, parse_float=number, parse_constant=lambda name: flaw(_NO_NUMBERS[name])
    )


def _found(document: Any, wanted: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """The first value or key of a document that matches, with its path, which is built only for that one."""
    above: list[tuple[Any, Iterator[tuple[Any, Any]]]] = [(None, iter([(None, document)]))]
    while above:
        key, value = next(above[-1][1], (_END, None))
        if key is _END:
            above.pop()
            continue
        for candidate in (key, value) if isinstance(key, str) else (value,):
            if wanted(candidate):
                steps = [step for step, _ in above[1:]]
                return _path([*steps, key] if candidate is value else steps), candidate
        if isinstance(value, dict):
            above.append((key, iter(value.items())))
        elif isinstance(value, list):
            above.append((key, iter(enumerate(value))))
    return None


_END = object()


def _path(steps: list[Any]) -> str:
    """The JSONPath of a value; `steps` begins with the document's own, None."""
    return "$" + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step[:_ECHOED]}" for step in steps if step is not None
    )
