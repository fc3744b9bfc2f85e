"""docs/guarantees.md names existing constraints, tests, properties and rules."""

import ast
import re

from nexmdm.commands import audit
from nexmdm.schema.models import Base

from model import spin
from tests.support.api import ROOT

DOCUMENT = (ROOT / "docs/guarantees.md").read_text()
PROPERTY = re.compile(r"\| ((?:[DR]\d|audit)_\w+) \|$", re.MULTILINE)


def test_each_named_constraint_is_in_the_schema():
    known = {str(each.name) for table in Base.metadata.tables.values() for each in (*table.constraints, *table.indexes)}
    named = set(re.findall(r"\b(?:ck|uq|pk|fk)_\w+", DOCUMENT))
    assert named
    assert named - known == set()


def test_each_named_test_exists():
    named = re.findall(r"(tests/\S+\.py)::(test_\w+)", DOCUMENT)
    assert named
    for file, name in named:
        functions = [
            node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
        ]
        assert name in functions, f"{file} has no {name}"


def test_named_properties_are_exactly_the_checked_ones():
    assert set(PROPERTY.findall(DOCUMENT)) == spin.properties() | spin.formulas()


def test_each_command_guarantee_names_its_test():
    rows = [line.split("|") for line in DOCUMENT.splitlines() if line.startswith("| ") and "::" not in line]
    about_tests = [row for row in rows if row[1].strip() not in ("guarantee", "rule") and len(row) > 4]
    assert about_tests == []


def test_each_audit_rule_is_explained():
    explained = set(re.findall(r"^\| (\w+) \| its? ", DOCUMENT, re.MULTILINE))
    assert explained == set(re.findall(r"THEN '(\w+)'", audit._AUDIT)) - {"first"}
