"""Finds the parts of an APK: entries, signing block, central directory, end record. Offsets are checked, not trusted.

The rules are Android's (libziparchive, ApkSigningBlockUtils): no ZIP64, the central directory ends where the end record
begins, and the signing block ends where the central directory begins. Readers disagree about an archive comment and a
second end record, so the end record has to be the last 22 bytes of the file.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nexmdm.runtime.errors import BuildRefused

MAGIC = b"APK Sig Block 42"
CHUNK = 1024 * 1024  # of the content digest, as defined by the scheme
MAX_BLOCK_BYTES = 4 * 1024 * 1024  # real ones have a few kilobytes
# Both limits are checked before any entry is read. The end record counts entries in 16 bits.
MAX_ENTRIES = 0xFFFF
MAX_DIRECTORY_BYTES = 16 * 1024 * 1024

_END = b"PK\x05\x06"
_END_RECORD = struct.Struct("<4sHHHHIIH")
_ZIP64_LOCATOR = b"PK\x06\x07"
_NO_ZIP64 = "a ZIP of less than 4 GiB"
_DIRECTORY_OFFSET_AT = 16  # within the end record


class Apk(NamedTuple):
    """The parts of a file. Entries end where the signing block begins.

    Attributes:
        entry_count: from the end record; at most MAX_ENTRIES.
        pairs: (id, value) of the signing block, in order.
    """

    data: memoryview
    block_start: int
    directory_start: int
    end_start: int
    entry_count: int
    pairs: list[tuple[int, memoryview]]


def parse(data: memoryview) -> Apk:
    """Find the parts of an APK.

    Raises:
        BuildRefused: it is not a ZIP with one plain end record, or it has no signing block.
    """
    end_start = len(data) - _END_RECORD.size
    if end_start < 0 or data[end_start : end_start + 4] != _END:
        raise BuildRefused("zip", "an APK, which is a ZIP without an archive comment", _what_ends(data))
    _, disk, directory_disk, here, count, size, directory_start, comment = _END_RECORD.unpack_from(data, end_start)
    if comment:
        raise BuildRefused("zip", "no archive comment", f"an end record that announces one of {comment} bytes")
    if 0xFFFFFFFF in (size, directory_start) or data[max(0, end_start - 20) : end_start][:4] == _ZIP64_LOCATOR:
        raise BuildRefused("zip", _NO_ZIP64, "ZIP64")
    if (disk, directory_disk) != (0, 0) or here != count:
        raise BuildRefused("zip", "one archive on one disk", f"parts on disks {disk} and {directory_disk}")
    if size > MAX_DIRECTORY_BYTES:
        raise BuildRefused("zip", f"a central directory of at most {MAX_DIRECTORY_BYTES} bytes", str(size))
    if directory_start + size != end_start:
        found = f"one of {size} bytes at {directory_start} before an end record at {end_start}"
        raise BuildRefused("zip", "a central directory that ends where the end record begins", found)
    block_start = _block_start(data, directory_start)
    pairs = list(_pairs(data[block_start + 8 : directory_start - 24]))
    return Apk(data, block_start, directory_start, end_start, count, pairs)


def content_digests(apk: Apk, names: Iterable[str]) -> dict[str, bytes]:
    """{hash name: digest} over everything except the signing block, in chunks of 1 MiB, as defined by schemes v2 and
    v3."""
    wanted = tuple(names)
    end = bytearray(apk.data[apk.end_start :])
    # The digest is that of the file without its signing block: the directory would begin where the block does.
    struct.pack_into("<I", end, _DIRECTORY_OFFSET_AT, apk.block_start)
    sections = (apk.data[: apk.block_start], apk.data[apk.directory_start : apk.end_start], memoryview(end))
    chunks = [section[at : at + CHUNK] for section in sections for at in range(0, len(section), CHUNK)]
    tops = {name: hashlib.new(name, b"\x5a" + struct.pack("<I", len(chunks))) for name in wanted}
    for chunk in chunks:
        head = b"\xa5" + struct.pack("<I", len(chunk))
        for name, top in tops.items():
            digest = hashlib.new(name, head)
            digest.update(chunk)
            top.update(digest.digest())
    return {name: top.digest() for name, top in tops.items()}


def _what_ends(data: memoryview) -> str:
    """What is found where the end record should be."""
    tail = bytes(data[-(_END_RECORD.size + 0xFFFF) :])
    at = tail.rfind(_END)
    if at < 0:
        return "no end-of-central-directory record"
    return f"{len(tail) - at - _END_RECORD.size} bytes after the end-of-central-directory record"


def _block_start(data: memoryview, directory_start: int) -> int:
    if directory_start < 32 or data[directory_start - 16 : directory_start] != MAGIC:
        raise BuildRefused(
            "signature", "APK Signature Scheme v2 or v3", "no APK Signing Block: v1 (JAR) signing only, or none"
        )
    (size,) = struct.unpack_from("<Q", data, directory_start - 24)
    start = directory_start - int(size) - 8
    if not 24 <= size <= MAX_BLOCK_BYTES or start < 0:
        raise BuildRefused("signature", f"an APK Signing Block of 24 to {MAX_BLOCK_BYTES} bytes", str(size))
    (again,) = struct.unpack_from("<Q", data, start)
    if again != size:
        raise BuildRefused("signature", f"the size {size} at both ends of the APK Signing Block", str(again))
    return start


def _pairs(block: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(block):
        if len(block) - at < 12:
            raise BuildRefused("signature", "whole pairs in the APK Signing Block", f"{len(block) - at} bytes too many")
        size, id_ = struct.unpack_from("<QI", block, at)
        if not 4 <= size <= len(block) - at - 8:
            raise BuildRefused("signature", f"a pair of 4 to {len(block) - at - 8} bytes", str(size))
        yield id_, block[at + 12 : at + 8 + size]
        at += 8 + size
