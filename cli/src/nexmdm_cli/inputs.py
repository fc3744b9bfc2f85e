"""Values from a file or stdin, as written by people and editors."""

import sys
from pathlib import Path

BYTE_ORDER_MARK = "\ufeff"


def content(name: str) -> bytes:
    """The bytes of the file; `-` is stdin.

    Raises:
        OSError: it cannot be read.
    """
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def secret(value: str) -> str:
    """A secret without the white space, byte order mark and quotes that pasting can add."""
    stripped = value.strip().strip(BYTE_ORDER_MARK).strip()
    quoted = len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "\"'"
    return secret(stripped[1:-1]) if quoted else stripped
