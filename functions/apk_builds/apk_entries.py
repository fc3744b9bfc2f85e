"""Reads the entries of an APK as strictly as Android (libziparchive), and rejects entries that others read differently.

Python's zipfile is not used: it renames entries by extra fields from 3.13 on, uses the last of two entries with one
name, and checks a local header only when an entry is opened. Here the central directory and the local headers must
agree, names must be unique and plain, and the bytes before the signing block must belong to entries without a gap.
"""

import struct
import unicodedata
import zlib
from typing import NamedTuple

from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds.apk_file import MAX_ENTRIES, Apk

STORED, DEFLATED = 0, 8

_DIRECTORY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_DIRECTORY_MAGIC, _LOCAL_MAGIC, _DESCRIPTOR_MAGIC = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"

_HAS_DESCRIPTOR = 0x0008
# The level of a deflater (0x0006), a data descriptor (0x0008), names in UTF-8 (0x0800).
_KNOWN_FLAGS = 0x0006 | _HAS_DESCRIPTOR | 0x0800
_ENCRYPTED = 0x2041

# Extra fields that change size, name or content for other readers.
_REFUSED_EXTRAS = {
    0x0001: "ZIP64 sizes",
    0x0017: "strong encryption",
    0x6375: "a Unicode comment",
    0x7075: "a Unicode path, which renames the entry",
    0x9901: "AES encryption",
}
# Some readers look these names up without regard to case or to what follows a slash.
_RESERVED_NAMES = {"androidmanifest.xml": "AndroidManifest.xml", "resources.arsc": "resources.arsc"}
_EMPTY_PARTS = {"", ".", ".."}
# apksigner begins the signing block at a page, with zeros before it.
_MAX_PADDING = 4096


class Entry(NamedTuple):
    """One file in an APK. `data_start` is where its (compressed) bytes begin."""

    name: str
    method: int
    crc: int
    compressed_size: int
    size: int
    data_start: int


class _Listed(NamedTuple):
    """An entry as the central directory lists it."""

    name: bytes
    flags: int
    method: int
    crc: int
    compressed_size: int
    size: int
    offset: int


def read(apk: Apk) -> dict[str, Entry]:
    """Read every entry, by name.

    Raises:
        BuildRefused: Android rejects the archive, or two readers could read it differently.
    """
    listed = sorted(_directory(apk), key=lambda entry: entry.offset)
    entries: dict[str, Entry] = {}
    at, unlisted = 0, 0
    for entry in listed:
        name = _plain(entry.name)
        if name in entries:
            raise BuildRefused("zip", "names that are there once", f"{name!r} twice")
        unlisted = _check_gap(apk, at, entry.offset, name, unlisted)
        data_start = _local(apk, entry, name)
        at = data_start + entry.compressed_size
        if entry.flags & _HAS_DESCRIPTOR:
            at += _descriptor_size(apk, entry, at, name)
        if at > apk.block_start:
            raise BuildRefused("zip", "entries that end before the signing block", f"{name!r} reaches into it")
        entries[name] = Entry(name, entry.method, entry.crc, entry.compressed_size, entry.size, data_start)
    _check_padding(apk, at)
    return entries


def content(apk: Apk, entry: Entry, max_bytes: int) -> memoryview:
    """Read a whole entry, without a copy if it is stored.

    Raises:
        BuildRefused: it is larger than `max_bytes`, or does not match its size and checksum.
    """
    if entry.size > max_bytes:
        raise BuildRefused("zip", f"{entry.name} of at most {max_bytes} bytes", str(entry.size))
    raw = apk.data[entry.data_start : entry.data_start + entry.compressed_size]
    data = raw if entry.method == STORED else memoryview(_inflated(raw, entry))
    if zlib.crc32(data) != entry.crc:
        raise BuildRefused("zip", f"{entry.name} with the checksum {entry.crc:08x}", f"{zlib.crc32(data):08x}")
    return data


def _inflated(raw: memoryview, entry: Entry) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(raw, entry.size + 1)
    except zlib.error:
        raise BuildRefused("zip", f"{entry.name} deflated", "bytes that cannot be inflated") from None
    if len(data) != entry.size or not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
        raise BuildRefused("zip", f"{entry.name} of exactly {entry.size} bytes", "deflated data of another size")
    return data


def _directory(apk: Apk) -> list[_Listed]:
    """The central directory's entries, in its order."""
    if not apk.entry_count:
        raise BuildRefused("zip", "at least one entry", "none")
    listed, at = [], apk.directory_start
    for number in range(apk.entry_count):
        if at + _DIRECTORY.size > apk.end_start or apk.data[at : at + 4] != _DIRECTORY_MAGIC:
            raise BuildRefused("zip", f"{apk.entry_count} entries in the central directory", str(number))
        fields = _DIRECTORY.unpack_from(apk.data, at)
        flags, method, crc, compressed_size, size = fields[3], fields[4], *fields[7:10]
        name_size, extra_size, comment_size, disk, offset = *fields[10:14], fields[16]
        extra_at = at + _DIRECTORY.size + name_size
        next_at = extra_at + extra_size + comment_size
        if next_at > apk.end_start:
            raise BuildRefused("zip", "entries inside the central directory", f"entry {number} reaches beyond it")
        raw_name = bytes(apk.data[at + _DIRECTORY.size : extra_at])
        if comment_size:
            raise BuildRefused("zip", "entries without a comment", f"{raw_name!r} has one of {comment_size} bytes")
        if 0xFFFFFFFF in (compressed_size, size, offset) or disk == 0xFFFF:
            raise BuildRefused("zip", "a ZIP of less than 4 GiB", f"ZIP64 at {raw_name!r}")
        if disk:
            raise BuildRefused("zip", "one archive on one disk", f"{raw_name!r} on disk {disk}")
        _check_extra(apk.data[extra_at : extra_at + extra_size], raw_name)
        listed.append(_Listed(raw_name, flags, method, crc, compressed_size, size, offset))
        at = next_at
    if at != apk.end_start:
        found = f"{apk.end_start - at} bytes more"
        raise BuildRefused("zip", f"{apk.entry_count} entries in the central directory and no more", found)
    return listed


def _local(apk: Apk, entry: _Listed, name: str) -> int:
    """Compare an entry's local header with the central directory. Returns where its data begin."""
    if entry.flags & ~_KNOWN_FLAGS:
        found = "encrypted" if entry.flags & _ENCRYPTED else f"flags {entry.flags:#06x}"
        raise BuildRefused("zip", "plain entries", f"{name!r} is {found}")
    if entry.method not in (STORED, DEFLATED):
        raise BuildRefused("zip", "entries stored or deflated", f"method {entry.method} at {name!r}")
    if entry.method == STORED and entry.size != entry.compressed_size:
        found = f"{name!r} of {entry.size} bytes stored in {entry.compressed_size}"
        raise BuildRefused("zip", "stored entries of one size", found)
    if entry.offset + _LOCAL.size > apk.block_start or apk.data[entry.offset : entry.offset + 4] != _LOCAL_MAGIC:
        raise BuildRefused("zip", f"a local header at {entry.offset}", f"none, though {name!r} is said to be there")
    _, _, flags, method, _, _, crc, compressed_size, size, name_size, extra_size = _LOCAL.unpack_from(
        apk.data, entry.offset
    )
    name_at = entry.offset + _LOCAL.size
    data_start = name_at + int(name_size) + int(extra_size)
    if data_start > apk.block_start:
        raise BuildRefused("zip", "entries that end before the signing block", f"{name!r} reaches into it")
    local_name = bytes(apk.data[name_at : name_at + name_size])
    if local_name != entry.name:
        raise BuildRefused("zip", f"a local header of {name!r}", f"one of {local_name[:200]!r}")
    sizes, listed = (crc, compressed_size, size), (entry.crc, entry.compressed_size, entry.size)
    # Only with a data descriptor may the local header omit the values that follow the data.
    pairs = zip(sizes, listed, strict=True)
    same = all(a in (0, b) for a, b in pairs) if entry.flags & _HAS_DESCRIPTOR else sizes == listed
    if (flags, method) != (entry.flags, entry.method) or not same:
        expected = (
            f"flags, method, checksum and sizes {(entry.flags, entry.method, *listed)} in both headers of {name!r}"
        )
        raise BuildRefused("zip", expected, f"{(flags, method, *sizes)} in the local one")
    _check_extra(apk.data[data_start - extra_size : data_start], entry.name)
    return data_start


def _descriptor_size(apk: Apk, entry: _Listed, at: int, name: str) -> int:
    wanted = struct.pack("<III", entry.crc, entry.compressed_size, entry.size)
    for descriptor in (_DESCRIPTOR_MAGIC + wanted, wanted):
        if apk.data[at : at + len(descriptor)] == descriptor:
            return len(descriptor)
    raise BuildRefused("zip", f"a data descriptor after {name!r} that says what the directory says", "another or none")


def _check_extra(extra: memoryview, name: bytes) -> None:
    """Fields must be whole; older versions of zipalign leave up to three zeros at the end."""
    at = 0
    while len(extra) - at >= 4:
        id_, size = struct.unpack_from("<HH", extra, at)
        if id_ in _REFUSED_EXTRAS:
            raise BuildRefused("zip", "no extra field that changes an entry", f"{_REFUSED_EXTRAS[id_]} at {name!r}")
        at += 4 + size
    if at > len(extra) or any(extra[at:]):
        raise BuildRefused("zip", "whole extra fields", f"a broken one at {name!r}")


def _check_gap(apk: Apk, at: int, end: int, name: str, unlisted: int) -> int:
    """Check the bytes between two entries. Returns `unlisted` and the number of virtual entries among them.

    Only zipflinger's virtual entries are allowed: a local header without a name, and zeros. The build tools of Android
    Studio leave them where a file was replaced by a smaller one. When apksigner signs an APK again, the zeros before
    the earlier signing block remain, followed by its own files.
    """
    if end < at:
        raise BuildRefused("zip", "entries that do not overlap", f"{name!r} begins inside the one before it")
    if end - at < _MAX_PADDING and name.startswith("META-INF/") and _zeros(apk.data[at:end]):
        return unlisted
    while at < end:
        if end - at < _LOCAL.size or apk.data[at : at + 4] != _LOCAL_MAGIC:
            raise BuildRefused("zip", "entries without gaps", f"{end - at} bytes before {name!r} that are in no entry")
        _, _, flags, method, _, _, *sizes, extra_size = _LOCAL.unpack_from(apk.data, at)
        next_at = at + _LOCAL.size + extra_size
        unlisted += 1
        if flags or method or any(sizes) or next_at > end or not _zeros(apk.data[at + _LOCAL.size : next_at]):
            raise BuildRefused("zip", "local headers that the central directory lists", f"one more before {name!r}")
        if unlisted > MAX_ENTRIES:
            raise BuildRefused("zip", f"at most {MAX_ENTRIES} fillers between entries", "more")
        at = next_at
    return unlisted


def _check_padding(apk: Apk, at: int) -> None:
    padding = apk.data[at : apk.block_start]
    if len(padding) >= _MAX_PADDING or not _zeros(padding):
        found = f"{len(padding)} bytes that are in no entry"
        raise BuildRefused("zip", "nothing but padding between the last entry and the signing block", found)


def _zeros(data: memoryview) -> bool:
    return not bytes(data).strip(b"\0")


def _plain(raw: bytes) -> str:
    """An entry's name as text."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise BuildRefused("zip", "names in UTF-8", repr(raw[:200])) from None
    if not name or "\\" in name or any(unicodedata.category(character) == "Cc" for character in name):
        raise BuildRefused("zip", "plain names without backslashes and control characters", repr(name[:200]))
    if not _EMPTY_PARTS.isdisjoint(name.removesuffix("/").split("/")):
        raise BuildRefused("zip", "names without empty, . and .. parts", repr(name[:200]))
    wanted = _RESERVED_NAMES.get(name.partition("/")[0].strip().casefold())
    if wanted is not None and name != wanted:
        raise BuildRefused("zip", f"nothing that looks like {wanted}", repr(name[:200]))
    return name
