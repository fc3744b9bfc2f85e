"""The shell for which the existing agent builds command lines, with exactly the escaping that the agent does.

The agent escapes backslash and double quote in `ssid` and `password`, and nothing in the package names of
apply_battery_whitelist. Nothing is executed; the commands that would have been executed are returned.
"""

import re
from typing import NamedTuple

SUBSTITUTION = re.compile(r"\$\([^)]*\)|`[^`]*`")
VARIABLE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*|\$[0-9#?$!@*-]")
OPERATORS = re.compile(r"[;&|<>()\n\r`$ \t]")


class Word(NamedTuple):
    """The arguments that the called program receives, and the commands that the shell executed."""

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
    """A value that is inserted into the command line unchanged."""
    operator = OPERATORS.search(value)
    return Word(value[: operator.start()], (value[operator.start() :],)) if operator else Word(value)
