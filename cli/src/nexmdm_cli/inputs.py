"""Values from a file or stdin, as written by people and editors."""

import json
import sys
from pathlib import Path
from typing import Any

BYTE_ORDER_MARK = "\ufeff"


def content(name: str) -> bytes:
    """The bytes of the file; `-` is stdin.

    Raises:
        OSError: it cannot be read.
    """
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def document(text: str | bytes) -> Any:
    """The JSON in the text; from bytes, in the encoding of their byte order mark.

    Raises:
        ValueError: it is not JSON, or the API's JSON cannot carry it, such as NaN.
    """
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    return value


def secret(value: str) -> str:
    """A secret without the white space, byte order mark and quotes that pasting can add."""
    stripped = value.strip().strip(BYTE_ORDER_MARK).strip()
    quoted = len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "\"'"
    return secret(stripped[1:-1]) if quoted else stripped
