"""From bytes to validated values: strict JSON, then msgspec's types. Everything wrong is a problem with its path."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from nexmdm.runtime.errors import Invalid, Malformed, TooLarge

MAX_BODY_BYTES = 1024 * 1024
T = TypeVar("T")

_AT = re.compile(r"^(?P<detail>.*?)(?: - at (?:`key` in )?`(?P<path>[^`]*)`)?$", re.DOTALL)
# Escapes are the only way for a NUL or half a surrogate pair to get into a parsed document.
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def parse(body: bytes) -> Any:
    """The JSON document of a body; an empty body is an empty object.

    Raises:
        TooLarge: more than 1 MiB.
        Malformed: not UTF-8, not JSON, NaN or Infinity, a key given twice, nested too deep, a number too long.
        Invalid: a string holds NUL or half a surrogate pair, which PostgreSQL cannot store.
    """
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"The body has {len(body)} bytes; the limit is {MAX_BODY_BYTES}. Send less at once.")
    if not body:
        return {}
    flaws: list[_Flaw] = []
    try:
        document = _decoder(flaws).decode(body.decode())
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not valid UTF-8 at byte {error.start}.") from None
    except RecursionError:
        raise Malformed("The body is nested too deep.") from None
    except json.JSONDecodeError as error:
        raise Malformed(
            f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError:
        # int() refuses more than 4,300 digits.
        raise Malformed("The body holds a number that is too long.") from None
    if flaws:
        path, flaw = next((path, value) for path, value in _values(document) if isinstance(value, _Flaw))
        raise Malformed(f"{path}{flaw.at}: {flaw.detail}", errors=[{"path": path + flaw.at, "detail": flaw.detail}])
    if _SUSPECT_ESCAPE.search(body):
        for path, value in _values(document):
            if isinstance(value, str):
                storable(value, path)
    return document


def convert(document: Any, type_: type[T], root: str = "$") -> T:
    """The document as `type_`; strings are taken for numbers and booleans where those are wanted.

    Raises:
        Invalid: with the JSONPath of the first field that does not fit.
    """
    try:
        return msgspec.convert(document, type_, strict=False)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        path = (found["path"] or "$").replace("$", root, 1)
        raise Invalid(path, found["detail"].replace("`", "")) from None
    except RecursionError:
        raise Malformed("The body is nested too deep.") from None


def storable(text: str, path: str) -> None:
    """Refuse what PostgreSQL's text cannot hold."""
    if _UNSTORABLE.search(text):
        raise Invalid(path, "holds a NUL character or half a surrogate pair; remove it")


class _Flaw:
    """Stands in a parsed document where something that JSON does not know stood, so that its path can be told."""

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
        object_pairs_hook=pairs, parse_float=number, parse_constant=lambda name: flaw(f"{name} is not a JSON number")
    )


def _values(document: Any) -> Iterator[tuple[str, Any]]:
    """Every value of a document with its path, keys included."""
    waiting = [("$", document)]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if isinstance(value, dict):
            for key, member in value.items():
                yield path, key
                waiting.append((f"{path}.{key[:100]}", member))
        elif isinstance(value, list):
            waiting.extend((f"{path}[{n}]", member) for n, member in enumerate(value))
