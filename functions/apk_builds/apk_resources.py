"""Resolves references of the manifest in resources.arsc, as Android does for values that may not depend on the device.

Only a resource with one value for every configuration is resolved: Android ignores a version name that varies by
language or density. Plain and sparse types are supported; compact entries and 16-bit offsets, which Android before 14
cannot read, are rejected.
"""

import struct
from collections.abc import Iterator

from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds import apk_chunks
from functions.apk_builds.apk_chunks import Chunk, Strings
from functions.apk_builds.apk_xml import REFERENCE, STRING, Value

NAME = "resources.arsc"
WHAT = NAME
MAX_BYTES = 64 * 1024 * 1024
MAX_PACKAGES, MAX_CHUNKS = 256, 50_000
MAX_STEPS = 20  # of references to references, as on Android

_TABLE, _PACKAGE, _TYPE, _TYPE_SPEC = 0x0002, 0x0200, 0x0201, 0x0202
_OTHERS = (0x0203, 0x0204, 0x0205, 0x0206)  # libraries, overlays, staged ids
_SPARSE, _OFFSETS_16 = 0x01, 0x02
_PUBLIC, _WEAK = 0x0002, 0x0004
_NOT_CONFIGURATION = 0x60000000  # public, and staged for a coming version


class Table:
    """A resource table with validated chunks. Values are read when a reference is resolved."""

    def __init__(self, data: memoryview) -> None:
        """Raises: BuildRefused: it is not one string pool and packages of whole chunks; no phone installs that."""
        table = apk_chunks.read(data, 0, WHAT)
        if (table.type, table.header_size) != (_TABLE, 12) or len(table.data) != len(data):
            raise _refused("a resource table that fills its file", f"type {table.type:#06x}, {len(data)} bytes")
        (count,) = struct.unpack_from("<I", data, 8)
        chunks = list(apk_chunks.walk(data, 12, WHAT, MAX_PACKAGES))
        if len(chunks) != 1 + count or any(chunk.type != _PACKAGE for chunk in chunks[1:]):
            raise _refused(f"one string pool and {count} packages", f"{len(chunks)} chunks")
        self._strings = Strings(chunks[0], WHAT)
        self._packages = [(_package_id(chunk), list(_checked(chunk))) for chunk in chunks[1:]]

    def resolve(self, id_: int) -> Value:
        """Follow a reference to its value.

        Raises:
            BuildRefused: it refers to nothing, to a resource of the phone, or to one that varies.
        """
        for _ in range(MAX_STEPS):
            value = self._only_value(id_)
            if value.type == STRING:
                return value._replace(text=self._strings.text(value.data))
            if value.type != REFERENCE:
                return value
            id_ = value.data
        raise _refused(f"at most {MAX_STEPS} references to references", "more")

    def _only_value(self, id_: int) -> Value:
        name = f"@{id_:08x}"
        package, type_, entry = id_ >> 24, id_ >> 16 & 0xFF, id_ & 0xFFFF
        if package == 0x01:
            raise _refused("a resource of the APK's own", f"{name}, one of the phone's")
        chunks = self._chunks(package, type_, name)
        specs = [chunk for chunk in chunks if chunk.type == _TYPE_SPEC]
        if len(specs) != 1 or specs[0].header_size != 16 or len(specs[0].data) < 20 + 4 * entry:
            raise _refused(f"one resource {name}", f"{len(specs)} descriptions of its type")
        (flags,) = struct.unpack_from("<I", specs[0].data, 16 + 4 * entry)
        values = [
            (_is_default(chunk), value)
            for chunk in chunks
            if chunk.type == _TYPE and (value := _value(chunk, entry, name)) is not None
        ]
        if flags & ~_NOT_CONFIGURATION or len(values) != 1 or not values[0][0]:
            raise _refused(f"one value of {name}, whatever the phone's language or screen", f"{len(values)}")
        return values[0][1]

    def _chunks(self, package: int, type_: int, name: str) -> list[Chunk]:
        """The chunks that describe one type of a package."""
        found = [chunks for id_, chunks in self._packages if id_ == package]
        if len(found) != 1:
            raise _refused(f"one package of {name}", str(len(found)))
        return [chunk for chunk in found[0] if chunk.type in (_TYPE, _TYPE_SPEC) and chunk.data[8] == type_]


def _package_id(chunk: Chunk) -> int:
    if chunk.header_size not in (284, 288):
        raise _refused("a package with a header of 284 or 288 bytes", str(chunk.header_size))
    id_, types_at, keys_at = (struct.unpack_from("<I", chunk.data, at)[0] for at in (8, 268, 276))
    if chunk.header_size == 288 and bytes(chunk.data[284:288]) != b"\0\0\0\0":
        raise _refused("types that are counted from 1", "an offset of types")
    if types_at != chunk.header_size or keys_at <= types_at:
        raise _refused("the names of types, then the names of entries, first in a package", f"{types_at}, {keys_at}")
    return int(id_)


def _checked(package: Chunk) -> Iterator[Chunk]:
    """The chunks of a package, each with a whole header."""
    pools: list[int] = []
    described: set[int] = set()
    for chunk in apk_chunks.walk(package.data, package.header_size, WHAT, MAX_CHUNKS):
        if chunk.type == apk_chunks.STRING_POOL:
            Strings(chunk, WHAT)
            pools.append(chunk.at)
        elif chunk.type == _TYPE_SPEC:
            if _entries(chunk, 16, 4):
                described.add(chunk.data[8])
        elif chunk.type == _TYPE:
            _entries(chunk, 20 + 4, 2 if chunk.data[9] & _OFFSETS_16 else 4)
            (start,) = struct.unpack_from("<I", chunk.data, 16)
            if chunk.data[8] not in described or start % 4 or start > len(chunk.data):
                found = f"type {chunk.data[8]} with values at {start} of {len(chunk.data)}"
                raise _refused("types that are described before their values", found)
        elif chunk.type not in _OTHERS:
            raise _refused("known chunks in a package", f"type {chunk.type:#06x}")
        yield chunk
    if pools != list(struct.unpack_from("<I4xI", package.data, 268)):
        raise _refused("two string pools in a package, at the places that its header names", str(pools))


def _entries(chunk: Chunk, least_header: int, entry_bytes: int) -> int:
    """The number of entries of a type, which must be inside it."""
    if chunk.header_size < least_header or not chunk.data[8]:
        raise _refused("types with a number and a whole header", f"a header of {chunk.header_size} bytes")
    (count,) = struct.unpack_from("<I", chunk.data, 12)
    if chunk.header_size + entry_bytes * count > len(chunk.data):
        raise _refused("entries inside their type", f"{count} in {len(chunk.data)} bytes")
    return int(count)


def _is_default(chunk: Chunk) -> bool:
    """Whether a chunk of values applies to every configuration: its description is zero after the size."""
    (size,) = struct.unpack_from("<I", chunk.data, 20)
    if chunk.header_size != 20 + size:
        raise _refused(f"a header of {20 + size} bytes before values", str(chunk.header_size))
    return not any(chunk.data[24 : chunk.header_size])


def _value(chunk: Chunk, entry: int, name: str) -> Value | None:
    """The value that a chunk has for an entry of its type, or None."""
    try:
        at = _entry_at(chunk, entry)
        return None if at is None else _entry_value(chunk.data, at, name)
    except (struct.error, IndexError):
        raise _refused(f"{name} inside its table", "a place outside of it") from None


def _entry_at(chunk: Chunk, entry: int) -> int | None:
    flags, count, start = chunk.data[9], *struct.unpack_from("<II", chunk.data, 12)
    if flags & ~_SPARSE:
        found = "16-bit offsets, which no Android before 14 reads" if flags == _OFFSETS_16 else f"flags {flags:#04x}"
        raise _refused("a plain or sparse type", found)
    if flags & _SPARSE:
        offsets = dict(struct.iter_unpack("<HH", chunk.data[chunk.header_size : chunk.header_size + 4 * count]))
        return start + 4 * offsets[entry] if entry in offsets else None
    if entry >= count:
        return None
    (offset,) = struct.unpack_from("<I", chunk.data, chunk.header_size + 4 * entry)
    return None if offset == apk_chunks.NO_INDEX else start + offset


def _entry_value(data: memoryview, at: int, name: str) -> Value:
    size, flags = struct.unpack_from("<HH", data, at)
    if flags & ~(_PUBLIC | _WEAK) or size != 8:
        raise _refused(f"a plain value of {name}", f"flags {flags:#06x}: a style, an array, or a compact entry")
    value_size, zero, type_, number = struct.unpack_from("<HBBI", data, at + 8)
    if value_size != 8 or zero:
        raise _refused(f"a value of 8 bytes of {name}", f"{value_size}")
    return Value(type_, number)


def _refused(expected: str, found: str) -> BuildRefused:
    return BuildRefused(WHAT, expected, found)
