"""A port of the lexer, parser and Matches function for label selectors of k8s.io/apimachinery.

It is an independent reference for `nexmdm.devices.selectors` and for the functions of the schema. It differs from
Kubernetes in one point: what counts as a label key.
"""

import re

SPECIAL = set("=!(),><")
SPACE = set(" \t\r\n")
TOKENS = {")", ",", "!", "==", "=", ">", "in", "<", "!=", "notin", "("}
KEY = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

Requirements = list[tuple[str, str, set[str]]]


class Refused(Exception):
    pass


def lex(text: str) -> list[tuple[str, str]]:
    """[(kind, literal)]. An identifier has the kind `id`, the end has `end`, and anything else its own literal."""
    items, at = [], 0
    while True:
        while at < len(text) and text[at] in SPACE:
            at += 1
        if at == len(text):
            items.append(("end", ""))
            return items
        start = at
        if text[at] in SPECIAL:
            while at < len(text) and text[at] in SPECIAL and text[start : at + 1] in TOKENS:
                at += 1
            items.append((text[start:at], text[start:at]))
        else:
            while at < len(text) and text[at] not in SPECIAL | SPACE:
                at += 1
            word = text[start:at]
            items.append((word if word in TOKENS else "id", word))


class Parser:
    def __init__(self, text: str) -> None:
        self.items, self.at = lex(text), 0

    def lookahead(self, values: bool = True) -> tuple[str, str]:
        kind, literal = self.items[self.at]
        return ("id" if values and kind in ("in", "notin") else kind), literal

    def consume(self, values: bool = True) -> tuple[str, str]:
        found = self.lookahead(values)
        self.at = min(self.at + 1, len(self.items) - 1)
        return found

    def parse(self) -> Requirements:
        requirements: Requirements = []
        while True:
            kind, _ = self.lookahead()
            if kind == "end":
                return requirements
            if kind not in ("id", "!"):
                raise Refused
            requirements.append(self.requirement())
            kind, _ = self.consume()
            if kind == "end":
                return requirements
            if kind != "," or self.lookahead()[0] not in ("id", "!"):
                raise Refused

    def requirement(self) -> tuple[str, str, set[str]]:
        operator = ""
        kind, key = self.consume()
        if kind == "!":
            operator = "!"
            kind, key = self.consume()
        if kind != "id" or not KEY.fullmatch(key):
            raise Refused
        if self.lookahead()[0] in ("end", ",") and operator != "!":
            operator = "exists"
        if operator:
            return key, operator, set()
        operator, _ = self.consume(values=False)
        if operator in ("in", "notin"):
            values = self.values()
        elif operator in ("=", "==", "!=", ">", "<"):
            values = self.exact_value()
        else:
            raise Refused
        if operator in (">", "<") and not all(is_int64(value) for value in values):
            raise Refused
        if not all(len(value) <= 63 and VALUE.fullmatch(value) for value in values):
            raise Refused
        return key, operator, values

    def values(self) -> set[str]:
        if self.consume()[0] != "(":
            raise Refused
        kind, _ = self.lookahead()
        if kind == ")":
            self.consume()
            return {""}
        if kind not in ("id", ","):
            raise Refused
        values = self.identifiers()
        if self.consume()[0] != ")":
            raise Refused
        return values

    def identifiers(self) -> set[str]:
        found: set[str] = set()
        while True:
            kind, literal = self.consume()
            if kind == "id":
                found.add(literal)
                following, _ = self.lookahead()
                if following == ")":
                    return found
                if following != ",":
                    raise Refused
            elif kind == ",":
                if not found:
                    found.add("")
                following, _ = self.lookahead()
                if following == ")":
                    return found | {""}
                if following == ",":
                    self.consume()
                    found.add("")
            else:
                raise Refused

    def exact_value(self) -> set[str]:
        if self.lookahead()[0] in ("end", ","):
            return {""}
        kind, literal = self.consume()
        if kind != "id":
            raise Refused
        return {literal}


def parse(text: str) -> Requirements:
    return Parser(text).parse()


def is_int64(value: str) -> bool:
    return bool(re.fullmatch(r"[+-]?[0-9]+", value, re.ASCII)) and -(2**63) <= int(value) < 2**63


def matches(requirements: Requirements, labels: dict[str, str]) -> bool:
    return all(_matches(key, operator, values, labels) for key, operator, values in requirements)


def _matches(key: str, operator: str, values: set[str], labels: dict[str, str]) -> bool:
    if operator in ("in", "=", "=="):
        return key in labels and labels[key] in values
    if operator in ("notin", "!="):
        return key not in labels or labels[key] not in values
    if operator == "exists":
        return key in labels
    if operator == "!":
        return key not in labels
    if key not in labels or not is_int64(labels[key]):
        return False
    (value,) = values
    return int(labels[key]) > int(value) if operator == ">" else int(labels[key]) < int(value)
