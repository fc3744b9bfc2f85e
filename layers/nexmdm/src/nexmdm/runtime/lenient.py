"""Lenient parsing of device bodies: an invalid value never causes a report to be rejected.

A device's agent retries after every status other than 2xx for a day, so one unexpected value would make a healthy phone
look dead. An invalid value becomes null. Numbers are rounded where a whole number is expected; descriptive text is
cleaned and truncated, but identifiers and names never are. Unknown members are ignored. A body is rejected only if it
is not a JSON object, is too large or nested too deeply, or if a required member, which decides what the call does, is
missing or invalid.

A body without invalid values is decoded in one step. Any other is read again, member by member.
"""

import math
import re
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec
from msgspec import NODEFAULT, UNSET, Raw, Struct, UnsetType

from nexmdm.runtime.errors import Invalid, Malformed
from nexmdm.runtime.validation import UNSTORABLE, check_size_and_depth, longer

T = TypeVar("T")

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_LONGEST_NUMBER = 330  # characters, enough for any double
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NUL = b"\\u0000"
# Values outside strings that JSON does not allow; and strings (also unterminated ones), to find where they end.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|-?Infinity|NaN', re.DOTALL)
# An escaped surrogate pair, an unpaired surrogate, or any other escape.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
# Not allowed in a JSON string: raw control characters, and bytes that Python does not decode as UTF-8.
_BARE = {n: f"\\u{n:04x}" for n in range(0x20)} | dict.fromkeys(range(0xDC80, 0xDD00), "\\u0000")
# Replaces a value that JSON does not allow; no type accepts it.
_UNREADABLE = b"1e999"


class _Unfit:
    """Returned by `_value` for an invalid value."""


_UNFIT = _Unfit()


class Reading(NamedTuple, Generic[T]):
    """The parsed body, and the paths of the members whose values were dropped."""

    value: T
    dropped: list[str]


def read(body: bytes, type_: type[T]) -> Reading[T]:
    """Read a device's body.

    Raises:
        TooLarge: more than 1 MiB.
        Malformed: not JSON, or nested deeper than 32.
        Invalid: not an object, or a required member is missing or invalid.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK) or b"{}"
    check_size_and_depth(body)
    return item(body, type_)


def item(body: bytes | Raw, type_: type[T], root: str = "$") -> Reading[T]:
    """The same for a part of a body that has already been read."""
    text = bytes(body)
    if _NUL not in text:
        try:
            return Reading(_decoder(type_).decode(text), [])
        except ValueError:  # also msgspec's own errors, and its plain one for a number beyond the year 9999
            pass
    dropped: list[str] = []
    value = _struct(type_, _members(text, type_, root), root, "", dropped)
    return Reading(value, dropped)


def items(raw: Raw, at_most: int, path: str) -> list[Raw]:
    """The items of a list, not yet parsed.

    Raises:
        Invalid: it is not a list, or has too many items.
    """
    text = bytes(raw)
    if not text.startswith(b"["):
        raise Invalid(path, "must be a list")
    if longer(text, at_most):
        raise Invalid(path, f"has too many items; the limit is {at_most}")
    return msgspec.json.decode(text, type=list[Raw])


def entries(text: bytes, type_: type[T], dropped: list[str], path: str) -> dict[str, T | None] | None:
    """The members of an object with arbitrary names, None for each that is not an object; None if it is no object."""
    try:
        found = msgspec.json.decode(text, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            found = msgspec.json.decode(_repaired(text), type=dict[str, Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    read_: dict[str, T | None] = {}
    for name, value in found.items():
        if bytes(value) == b"null":
            read_[name] = None
            continue
        try:
            entry = item(value, type_)
        except (Invalid, Malformed):
            dropped.append(path)
            read_[name] = None
            continue
        dropped += (f"{path}.{member}" for member in entry.dropped)
        read_[name] = entry.value
    return read_


def _members(text: bytes, type_: type, root: str) -> Any:
    try:
        try:
            return _raw_decoder(type_).decode(text)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _raw_decoder(type_).decode(_repaired(text))
    except msgspec.ValidationError:
        raise Invalid(root, "must be an object") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"The body is not valid JSON: {str(error).removeprefix('JSON is malformed: ')}.") from None


def _struct(type_: type, members: Any, root: str, path: str, dropped: list[str]) -> Any:
    values = {}
    for field in _fields(type_):
        at = f"{path}{field.name}"
        raw = getattr(members, field.name)
        if raw is UNSET:
            value = _UNFIT
        elif field.struct:
            value = _nested(field.struct, raw, root, at, dropped)
        else:
            value = _value(field, raw)
            if value is _UNFIT and not field.required:
                dropped.append(at)
        if value is not _UNFIT:
            values[field.name] = value
        elif field.required:
            found = "is missing" if raw is UNSET else f"does not fit: {field.expected}"
            raise Invalid(f"{root}.{at}", found)
    return type_(**values)


def _nested(type_: type, raw: Raw, root: str, path: str, dropped: list[str]) -> Any:
    if bytes(raw) == b"null":
        return None
    try:
        members = _members(bytes(raw), type_, root)
    except (Invalid, Malformed):
        dropped.append(path)
        return None
    return _struct(type_, members, root, f"{path}.", dropped)


def _value(field: "_Field", raw: Raw) -> Any:
    if field.raw:
        return raw
    try:
        value = field.decoder.decode(raw)
        fits = UNSTORABLE.search(value) is None if isinstance(value, str) else value == value  # NaN is not
    except ValueError:
        fits = False
    if fits:
        return value
    if isinstance(field.info, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        return _number(field.info, raw)
    if isinstance(field.info, msgspec.inspect.StrType) and field.clean:
        text = _text(raw)
        return _UNFIT if text is None else UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[: field.info.max_length]
    return _UNFIT


def _number(info: Any, raw: Raw) -> Any:
    if len(bytes(raw)) > _LONGEST_NUMBER:
        return _UNFIT
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _UNFIT
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _UNFIT
    if isinstance(value, float) and not math.isfinite(value):
        return _UNFIT
    if isinstance(info, msgspec.inspect.IntType):
        value = math.floor(value + 0.5) if isinstance(value, float) else value
    low, high = info.ge, info.le
    return value if (low is None or value >= low) and (high is None or value <= high) else _UNFIT


def _text(raw: Raw) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(_repaired(bytes(raw)), type=str)


def _repaired(body: bytes) -> bytes:
    """The body with invalid values replaced so that it is JSON: NaN and Infinity become a number that no type accepts;
    bytes that are not UTF-8 and unpaired surrogates become escaped NULs; raw control characters become escapes."""
    repaired, done = bytearray(), 0
    for token in _TOKEN.finditer(body):
        found = token[0]
        replaced = _repaired_text(found) if found.startswith(b'"') else _UNREADABLE
        if replaced != found:
            repaired += body[done : token.start()]
            repaired += replaced
            done = token.end()
    repaired += body[done:]
    return bytes(repaired)


def _repaired_text(text: bytes) -> bytes:
    decoded = text.decode(errors="surrogateescape")
    # Only unpaired surrogates are split off: a piece for each escape would need a hundred times the text's memory.
    pieces: list[str] = []
    done = 0
    for found in _ESCAPE.finditer(decoded):
        if found["half"]:
            pieces += (decoded[done : found.start()], "\\u0000")
            done = found.end()
    if pieces:
        decoded = "".join(pieces) + decoded[done:]
    return decoded.translate(_BARE).encode()


class _Field(NamedTuple):
    """A member of a type, as `_struct` reads it."""

    name: str
    required: bool
    struct: type | None
    raw: bool
    clean: bool
    info: Any
    decoder: Any
    expected: str


@lru_cache
def _fields(type_: type) -> tuple[_Field, ...]:
    return tuple(_field(field) for field in msgspec.structs.fields(type_))


def _field(field: Any) -> _Field:
    info: Any = msgspec.inspect.type_info(field.type)
    extra: dict[str, object] = {}
    if isinstance(info, msgspec.inspect.UnionType):
        (info,) = [option for option in info.types if not isinstance(option, msgspec.inspect.NoneType)]
    while isinstance(info, msgspec.inspect.Metadata):
        extra, info = extra | (info.extra or {}), info.type
    struct = info.cls if isinstance(info, msgspec.inspect.StructType) else None
    raw = isinstance(info, msgspec.inspect.RawType)
    return _Field(
        field.name,
        field.default is NODEFAULT and field.default_factory is NODEFAULT,
        struct,
        raw,
        bool(extra.get("clean")),
        info,
        None if raw or struct else msgspec.json.Decoder(field.type, strict=False),
        _expected(info),
    )


def _expected(info: Any) -> str:
    if isinstance(info, msgspec.inspect.LiteralType):
        return f"it must be one of {', '.join(map(str, info.values))}"
    if isinstance(info, msgspec.inspect.StrType):
        return f"it must be text of {info.min_length or 0} to {info.max_length} characters"
    if isinstance(info, msgspec.inspect.IntType):
        return f"it must be a whole number from {info.ge} to {info.le}"
    return "it is of the wrong type"


def _decoder(type_: type[T]) -> "msgspec.json.Decoder[T]":
    decoder: msgspec.json.Decoder[T] = _decoders(cast(Hashable, type_))
    return decoder


@lru_cache
def _decoders(type_: Any) -> Any:
    return msgspec.json.Decoder(type_, strict=False)


@lru_cache
def _raw_decoder(type_: type) -> "msgspec.json.Decoder[Any]":
    """A decoder for an object whose members are not parsed yet."""
    members = [(field.name, Raw | UnsetType, UNSET) for field in msgspec.structs.fields(type_)]
    return msgspec.json.Decoder(msgspec.defstruct(type_.__name__, members, bases=(Struct,)))
