"""Arguments, stdout and stderr in any encoding: characters that it lacks are written in ASCII instead of raising.

A command must not fail while it prints the result of a change: the secret of a new token is shown only once.
"""

import codecs
import os
import re
import sys
from typing import Any

from typer.core import TyperGroup

from nexmdm_cli.failures import Code

ERRORS = "nexmdm_cli.in_ascii"
# Characters that the CLI itself prints; others come from people and devices, and are written as escapes.
IN_ASCII = {"…": "...", "–": "-", "—": "--", "•": "*", "�": "?"}
UNDECODED = re.compile("[\ud800-\udfff]")


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """An encoding error handler that writes a similar ASCII character, or Python's escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


codecs.register_error(ERRORS, in_ascii)


def can_show(text: str) -> bool:
    """Whether stdout's encoding has all these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def decoded(arguments: list[str]) -> list[str]:
    """Decode arguments as UTF-8 if Python decoded them as ASCII (C locale, UTF-8 mode off).

    Raises:
        UnicodeError: one of them is not UTF-8.
    """
    return [os.fsencode(text).decode() if UNDECODED.search(text) else text for text in arguments]


class Group(TyperGroup):
    """Typer's group, made to work in every terminal encoding."""

    def main(self, args: Any = None, *others: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=ERRORS)
        try:
            args = decoded(list(sys.argv[1:] if args is None else args))
        except UnicodeError:
            print("error: The command line is not valid UTF-8.", file=sys.stderr)
            sys.exit(Code.USAGE)
        return super().main(args, *others, **options)
