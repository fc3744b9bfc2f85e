"""Label selectors: Kubernetes' grammar, read into requirements, and their translation to SQL.

The grammar is that of `labels.Parse` in k8s.io/apimachinery: `site=berlin,role!=spare,stage in (pilot,canary),owner,
!retired,floor>3`. Commas mean AND. `!=` and `notin` also match devices without the key. docs/targets.md shows it whole.
"""

import enum
import re

import msgspec
from msgspec import Struct

from nexmdm.runtime.errors import Invalid

KEY_PATTERN = r"[a-z][a-z0-9_.-]{0,31}"
MAX_CHARACTERS = 4000

_KEY = re.compile(KEY_PATTERN)
# What Kubernetes takes as the value of a label; a device's own values may hold more, and then match by key only.
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_INTEGER = re.compile(r"[0-9]+")
_MAX_INTEGER = 2**63 - 1
_TOKEN = re.compile(r"[ \t\r\n]*(?P<text>==|!=|[=!(),<>]|[^=!(),<> \t\r\n]+|)")
_SYMBOLS = {"==", "!=", "=", "!", "(", ")", ",", "<", ">"}
_OPERATORS = ("=", "==", "!=", "in", "notin", "<", ">")


class Operator(enum.StrEnum):
    """How a requirement compares; the values are kept in stored filters and read by `labels_match` in the schema."""

    IN = "in"  # the device has the key, with one of the values: `=`, `==` and `in`
    NOT_IN = "notin"  # it has not: another value, or no such key: `!=` and `notin`
    EXISTS = "exists"  # the device has the key, with any value
    MISSING = "missing"  # the device does not have the key: `!key`
    GREATER = "gt"  # the value is an integer of 64 bits above the given one
    LESS = "lt"  # the value is an integer of 64 bits below the given one


class Requirement(Struct, frozen=True, omit_defaults=True):
    """One part of a selector. `values` are sorted and distinct."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


def parse(text: str, path: str = "$.selector") -> tuple[Requirement, ...]:
    """Read a selector.

    Raises:
        Invalid: with the path, the column (from 1) where it goes wrong, and what was expected there.
    """
    if len(text) > MAX_CHARACTERS:
        raise Invalid(path, f"has {len(text)} characters; at most {MAX_CHARACTERS} are allowed", column=1)
    return _Parser(text, path).selector()


def condition(requirement: Requirement, name: str) -> tuple[str, dict[str, object]]:
    """SQL for a requirement on `d.labels`, and its parameters, whose names begin with `name`."""
    operator, key = requirement.operator, requirement.key
    if operator in (Operator.IN, Operator.NOT_IN):
        # Containment and existence are what the GIN index on the labels answers.
        pairs = [msgspec.json.encode({key: value}).decode() for value in requirement.values]
        contains = f"d.labels @> ANY (%({name})s::jsonb[])"
        return (contains if operator is Operator.IN else f"NOT {contains}"), {name: pairs}
    if operator in (Operator.EXISTS, Operator.MISSING):
        exists = f"d.labels ? %({name})s"
        return (exists if operator is Operator.EXISTS else f"NOT {exists}"), {name: key}
    compare = ">" if operator is Operator.GREATER else "<"
    sql = f"d.labels ? %({name})s AND label_integer(d.labels ->> %({name})s) {compare} %({name}_value)s::numeric"
    return sql, {name: key, f"{name}_value": requirement.values[0]}


class _Parser:
    """A recursive descent over the tokens, as apimachinery's parser is one.

    `in` and `notin` are ordinary identifiers except where an operator stands.
    """

    def __init__(self, text: str, path: str) -> None:
        self._path = path
        self._tokens: list[tuple[str, int]] = []
        for found in _TOKEN.finditer(text):
            self._tokens.append((found["text"], found.start("text") + 1))
            if not found["text"]:
                break
        self._at = 0

    def selector(self) -> tuple[Requirement, ...]:
        if not self._text:
            raise self._error("is empty; leave it out, or give at least one requirement such as site=berlin")
        requirements = [self._requirement()]
        while self._text == ",":
            self._take()
            requirements.append(self._requirement())
        if self._text:
            raise self._unexpected("',' or the end")
        return tuple(requirements)

    def _requirement(self) -> Requirement:
        negated = self._text == "!"
        if negated:
            self._take()
        if not self._is_identifier:
            raise self._unexpected("a label key" if negated else "a label key or '!'")
        column = self._column
        key = self._take()
        if not _KEY.fullmatch(key):
            raise self._error(f"{_quoted(key)} is no label key; keys match {KEY_PATTERN}", column)
        if negated:
            return Requirement(key, Operator.MISSING)
        if self._text in ("", ","):
            return Requirement(key, Operator.EXISTS)
        if self._text not in _OPERATORS:
            raise self._unexpected(f"one of {' '.join(_OPERATORS)}, or ','")
        operator = self._take()
        if operator in ("in", "notin"):
            return Requirement(key, Operator(operator), self._values())
        column = self._column
        value = self._value() if self._text not in ("", ",") else ""
        if operator in ("<", ">"):
            if not _INTEGER.fullmatch(value) or int(value) > _MAX_INTEGER:
                raise self._error(f"{_quoted(value)} is not an integer of 64 bits, which {operator} compares", column)
            return Requirement(key, Operator.GREATER if operator == ">" else Operator.LESS, (value,))
        return Requirement(key, Operator.NOT_IN if operator == "!=" else Operator.IN, (value,))

    def _values(self) -> tuple[str, ...]:
        """A list in parentheses; `()`, and nothing before or after a comma, mean the empty value."""
        if self._text != "(":
            raise self._unexpected("'('")
        self._take()
        values: set[str] = set()
        if self._text == ")":
            values.add("")
        while self._text != ")":
            if self._is_identifier:
                values.add(self._value())
                if self._text not in (",", ")"):
                    raise self._unexpected("',' or ')'")
            elif self._text == ",":
                if not values:
                    values.add("")
                self._take()
                if self._text in (",", ")"):
                    values.add("")
                    if self._text == ",":
                        # As in apimachinery a value has to follow two commas.
                        self._take()
                        if self._text == ")":
                            raise self._unexpected("',' or a value")
            else:
                raise self._unexpected("',', ')' or a value" if not values else "',' or a value")
        self._take()
        return tuple(sorted(values))

    def _value(self) -> str:
        if not self._is_identifier:
            raise self._unexpected("a value")
        column = self._column
        value = self._take()
        if not _VALUE.fullmatch(value):
            raise self._error(
                f"{_quoted(value)} cannot stand in a selector: values have at most 63 letters, digits, '-', '_' and"
                " '.', and begin and end with a letter or digit. Other values are matched by their key only",
                column,
            )
        return value

    @property
    def _text(self) -> str:
        return self._tokens[self._at][0]

    @property
    def _column(self) -> int:
        return self._tokens[self._at][1]

    @property
    def _is_identifier(self) -> bool:
        return self._text != "" and self._text not in _SYMBOLS

    def _take(self) -> str:
        text = self._text
        # The end is never passed.
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return text

    def _unexpected(self, wanted: str) -> Invalid:
        found = _quoted(self._text) if self._text else "the end"
        return self._error(f"{wanted} is expected, {found} was found")

    def _error(self, detail: str, column: int | None = None) -> Invalid:
        column = self._column if column is None else column
        return Invalid(self._path, f"column {column}: {detail}", column=column)


def _quoted(text: str) -> str:
    """At most 60 characters of what the caller sent."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
