"""Reads the chunks and string pools that Android's binary XML and resource tables are made of (ResourceTypes.h).

A chunk is type, header size and size, in 2, 2 and 4 bytes. Android's reader tolerates malformed chunks; those that
other readers would interpret differently are rejected here.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from nexmdm.runtime.errors import BuildRefused

STRING_POOL = 0x0001
_HEADER = struct.Struct("<HHI")
_POOL = struct.Struct("<IIIII")
_UTF8, _SORTED = 0x100, 0x001
_LONGEST_STRING = 0x7FFF  # in characters; longer strings have more than one encoding
NO_INDEX = 0xFFFFFFFF


class Chunk(NamedTuple):
    """`data` is the whole chunk, header included; `at` its place in the file, for messages."""

    type: int
    header_size: int
    data: memoryview
    at: int


def read(data: memoryview, at: int, what: str) -> Chunk:
    """Read the chunk at an offset.

    Raises:
        BuildRefused: it extends beyond `data`, or its size is not a multiple of 4.
    """
    if len(data) - at < _HEADER.size:
        raise BuildRefused(what, "whole chunks", f"{len(data) - at} bytes at {at}")
    type_, header_size, size = _HEADER.unpack_from(data, at)
    if header_size < _HEADER.size or not header_size <= size <= len(data) - at or size % 4 or header_size % 4:
        raise BuildRefused(what, "whole chunks", f"type {type_:#06x}, header {header_size}, size {size} at {at}")
    return Chunk(type_, header_size, data[at : at + size], at)


def walk(data: memoryview, at: int, what: str, most: int) -> Iterator[Chunk]:
    """Read the chunks from an offset to the end of `data`; they fill it exactly.

    Raises:
        BuildRefused: they do not, or there are more than `most`.
    """
    for _ in range(most):
        if at == len(data):
            return
        chunk = read(data, at, what)
        yield chunk
        at += len(chunk.data)
    if at != len(data):
        raise BuildRefused(what, f"at most {most} chunks", "more")


class Strings:
    """A string pool. Strings are decoded on request."""

    def __init__(self, chunk: Chunk, what: str) -> None:
        """Raises: BuildRefused: its parts do not lie inside it one after the other."""
        self._what = what
        if chunk.type != STRING_POOL or chunk.header_size != _HEADER.size + _POOL.size:
            raise BuildRefused(what, "a string pool", f"type {chunk.type:#06x}, header {chunk.header_size}")
        self.count, self.styles, flags, strings, styles = _POOL.unpack_from(chunk.data, _HEADER.size)
        offsets_end = chunk.header_size + 4 * (self.count + self.styles)
        end = styles if self.styles else len(chunk.data)
        if flags & ~(_UTF8 | _SORTED):
            raise BuildRefused(what, "a string pool in UTF-8 or UTF-16", f"flags {flags:#x}")
        if not self.styles and styles:
            raise BuildRefused(what, "no place for styles without styles", str(styles))
        if self.count and not offsets_end <= strings <= end <= len(chunk.data):
            raise BuildRefused(what, "strings inside their pool", f"{strings} to {end} of {len(chunk.data)}")
        self._utf8 = bool(flags & _UTF8)
        terminator = b"\0" if self._utf8 else b"\0\0"
        if self.count and chunk.data[max(strings, end - len(terminator)) : end] != terminator:
            raise BuildRefused(what, "a zero after the last string of a pool", "something else")
        if self.styles and (styles % 4 or chunk.data[max(styles, len(chunk.data) - 12) :] != b"\xff" * 12):
            raise BuildRefused(what, "styles that end with a pool", "something else")
        self._offsets = chunk.data[chunk.header_size : chunk.header_size + 4 * self.count]
        self._content = chunk.data[strings:end] if self.count else chunk.data[:0]

    def text(self, index: int) -> str:
        """Decode a string.

        Raises:
            BuildRefused: it does not exist, or its length, end or encoding is wrong.
        """
        if not 0 <= index < self.count:
            raise BuildRefused(self._what, f"one of {self.count} strings", f"number {index}")
        (offset,) = struct.unpack_from("<I", self._offsets, 4 * index)
        try:
            text = self._utf8_text(offset) if self._utf8 else self._utf16_text(offset)
        except (struct.error, IndexError, UnicodeError):
            text = None
        if text is None or "\0" in text:
            encoding = "UTF-8" if self._utf8 else "UTF-16"
            raise BuildRefused(self._what, f"string {index} whole and in {encoding}", "a broken one")
        return text

    def _utf8_text(self, at: int) -> str | None:
        """Both lengths come first, in UTF-16 units and in bytes; a NUL ends the string."""
        units, at = self._short_length(at)
        size, at = self._short_length(at)
        raw = bytes(self._content[at : at + size])
        if len(raw) != size or self._content[at + size] != 0:
            return None
        # aapt2 writes characters beyond the basic plane as two surrogates of three bytes each.
        wide = raw.decode(errors="surrogatepass").encode("utf-16-le", "surrogatepass")
        return wide.decode("utf-16-le") if len(wide) == 2 * units else None

    def _utf16_text(self, at: int) -> str | None:
        if at % 2:
            return None
        (units,) = struct.unpack_from("<H", self._content, at)
        if units > _LONGEST_STRING:
            return None
        raw = bytes(self._content[at + 2 : at + 2 + 2 * units])
        (end,) = struct.unpack_from("<H", self._content, at + 2 + 2 * units)
        return raw.decode("utf-16-le") if end == 0 else None

    def _short_length(self, at: int) -> tuple[int, int]:
        """A length of one byte, or of two when the first bit is set. Returns it and what follows."""
        first = self._content[at]
        if first & 0x80:
            return (first & 0x7F) << 8 | self._content[at + 1], at + 2
        return first, at + 1
