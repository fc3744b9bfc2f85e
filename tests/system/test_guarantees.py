"""docs/guarantees.md names constraints, tests, properties and rules that are there."""

import ast
import re

from nexmdm.commands import audit
from nexmdm.schema.models import Base

from model import spin
from tests.support.api import ROOT

DOCUMENT = (ROOT / "docs/guarantees.md").read_text()
PROPERTY = re.compile(r"\| ((?:[DR]\d|audit)_\w+) \|$", re.MULTILINE)


def test_each_constraint_is_of_the_schema():
    known = {str(each.name) for table in Base.metadata.tables.values() for each in (*table.constraints, *table.indexes)}
    named = set(re.findall(r"\b(?:ck|uq|pk|fk)_\w+", DOCUMENT))
    assert named
    assert named - known == set()


def test_each_test_is_there():
    named = re.findall(r"(tests/\S+\.py)::(test_\w+)", DOCUMENT)
    assert named
    for file, name in named:
        functions = [
            node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
        ]
        assert name in functions, f"{file} has no {name}"


def test_each_property_is_checked_and_none_is_left_out():
    assert set(PROPERTY.findall(DOCUMENT)) == spin.properties() | spin.formulas()


def test_each_promise_about_commands_names_its_test():
    rows = [line.split("|") for line in DOCUMENT.splitlines() if line.startswith("| ") and "::" not in line]
    about_tests = [row for row in rows if row[1].strip() not in ("guarantee", "rule") and len(row) > 4]
    assert about_tests == []


def test_each_rule_of_the_audit_is_explained():
    explained = set(re.findall(r"^\| (\w+) \| its? ", DOCUMENT, re.MULTILINE))
    assert explained == set(re.findall(r"THEN '(\w+)'", audit._AUDIT)) - {"first"}
