"""The shell that the agent in the field builds command lines for, with the escaping that it does and no more.

The agent escapes backslash and double quote in `ssid` and `password`, and nothing in the package names of
apply_battery_whitelist. Nothing is executed here: what would have been is returned.
"""

import re
from typing import NamedTuple

SUBSTITUTION = re.compile(r"\$\([^)]*\)|`[^`]*`")
VARIABLE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*|\$[0-9#?$!@*-]")
OPERATORS = re.compile(r"[;&|<>()\n\r`$ \t]")


class Word(NamedTuple):
    """What the called program receives, and what the shell executed on the way."""

    value: str
    executed: tuple[str, ...] = ()


def quoted(value: str) -> Word:
    """A value between double quotes whose backslashes and double quotes were escaped."""
    executed = tuple(SUBSTITUTION.findall(value))
    arrived = VARIABLE.sub("", SUBSTITUTION.sub("", value))
    if "\n" in arrived or "\r" in arrived:
        arrived = re.split(r"[\r\n]", arrived)[0]
    return Word(arrived, executed)


def unquoted(value: str) -> Word:
    """A value that stands in the command line as it is."""
    operator = OPERATORS.search(value)
    return Word(value[: operator.start()], (value[operator.start() :],)) if operator else Word(value)
