"""Label selectors: a parser for Kubernetes' grammar, and the translation to SQL.

The grammar is that of `labels.Parse` in k8s.io/apimachinery: `site=berlin,role!=spare,stage in (pilot,canary),owner,
!retired,floor>3`. Commas mean AND. `!=` and `notin` also match devices without the key. docs/targets.md has the
complete grammar.
"""

import enum
import re

import msgspec
from msgspec import Struct

from nexmdm.runtime.errors import Invalid

KEY_PATTERN = r"[a-z][a-z0-9_.-]{0,31}"
MAX_CHARACTERS = 4000

_KEY = re.compile(KEY_PATTERN)
# The values that Kubernetes allows. A device's label may have other values, and then matches by key only.
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_INTEGER = re.compile(r"[0-9]+")
_MAX_INTEGER = 2**63 - 1
_TOKEN = re.compile(r"[ \t\r\n]*(?P<text>==|!=|[=!(),<>]|[^=!(),<> \t\r\n]+|)")
_SYMBOLS = {"==", "!=", "=", "!", "(", ")", ",", "<", ">"}
_OPERATORS = ("=", "==", "!=", "in", "notin", "<", ">")


class Operator(enum.StrEnum):
    """How a requirement compares. The values are part of stored filters and are read by the SQL function
    `labels_match`."""

    IN = "in"  # the device has the key, with one of the values: `=`, `==` and `in`
    NOT_IN = "notin"  # the device has another value, or does not have the key: `!=` and `notin`
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
        Invalid: with the path, the column (from 1) of the error, and what was expected there.
    """
    if len(text) > MAX_CHARACTERS:
        raise Invalid(path, f"has {len(text)} characters; at most {MAX_CHARACTERS} are allowed", column=1)
    return _Parser(text, path).selector()


def condition(requirement: Requirement, name: str) -> tuple[str, dict[str, object]]:
    """The SQL condition for a requirement on `d.labels`, and its parameters, whose names begin with `name`."""
    operator, key = requirement.operator, requirement.key
    if operator in (Operator.IN, Operator.NOT_IN):
        # The GIN index on the labels supports containment and existence.
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
    """A recursive descent parser, like that of apimachinery.

    `in` and `notin` are ordinary identifiers except where an operator is expected.
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
            raise self._error(f"{_quoted(key)} is not a label key; keys match {KEY_PATTERN}", column)
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
                        # As in apimachinery, two commas must be followed by a value.
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
                f"{_quoted(value)} is not allowed in a selector: values have at most 63 letters, digits, '-', '_' and"
                " '.', and begin and end with a letter or digit. Other values can be matched by key only",
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
        # Never moves past the end.
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return text

    def _unexpected(self, wanted: str) -> Invalid:
        found = _quoted(self._text) if self._text else "the end"
        return self._error(f"{wanted} is expected, {found} was found")

    def _error(self, detail: str, column: int | None = None) -> Invalid:
        column = self._column if column is None else column
        return Invalid(self._path, f"column {column}: {detail}", column=column)


def _quoted(text: str) -> str:
    """At most 60 characters of the caller's text."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
