"""Arguments, stdout and stderr of any terminal: what its encoding lacks is written in ASCII, nothing raises.

A command must not fail to print what the server has already done: the secret of a new token is shown only once.
"""

import codecs
import os
import re
import sys
from typing import Any

from typer.core import TyperGroup

from nexmdm_cli.failures import Code

ERRORS = "nexmdm_cli.in_ascii"
# What this command itself prints; other characters come from people and devices, and are written as escapes.
IN_ASCII = {"…": "...", "–": "-", "—": "--", "•": "*", "�": "?"}
UNDECODED = re.compile("[\ud800-\udfff]")


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """The handler of characters that an encoding lacks: a look-alike, or the escape that Python writes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


codecs.register_error(ERRORS, in_ascii)


def can_show(text: str) -> bool:
    """Whether stdout's encoding has all of these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def decoded(arguments: list[str]) -> list[str]:
    """Arguments as UTF-8, where Python took them for ASCII (the C locale with its UTF-8 mode off).

    Raises:
        UnicodeError: one of them is not UTF-8.
    """
    return [os.fsencode(text).decode() if UNDECODED.search(text) else text for text in arguments]


class Group(TyperGroup):
    """Typer's, for every terminal."""

    def main(self, args: Any = None, *others: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=ERRORS)
        try:
            args = decoded(list(sys.argv[1:] if args is None else args))
        except UnicodeError:
            print("error: The command line is not UTF-8.", file=sys.stderr)
            sys.exit(Code.USAGE)
        return super().main(args, *others, **options)
