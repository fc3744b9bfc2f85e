"""CSV files: no text becomes a formula in a spreadsheet, and an import reads back what was exported."""

import ast
import csv
import io
from pathlib import Path

import nexmdm_cli
import pytest
from nexmdm_cli import resources, tabular

# https://owasp.org/www-community/attacks/CSV_Injection
DANGEROUS = ("=1+1", '=HYPERLINK("x")', "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠1")
DEVICE = {
    "device_id": "d-1", "alias": "a", "labels": {"site": "berlin"}, "online": True, "model": None,
    "has_fcm_token": True, "created_at": "2026-01-01T00:00:00Z",
}  # fmt: skip


def exported(**changed: str) -> str:
    return tabular.written([resources.read(resources.Device, {**DEVICE, **changed})])


def cells(document: str) -> dict[str, str]:
    [row] = csv.DictReader(io.StringIO(document, newline=""))
    return row


@pytest.mark.parametrize("text", DANGEROUS, ids=repr)
def test_exported_cells_are_not_formulas(text):
    device = cells(exported(alias=text, model=text))
    assert (device["alias"], device["model"]) == (f"'{text}", f"'{text}")
    assert cells(tabular.table([{"result": text}], ["result"])) == {"result": f"'{text}"}


def test_line_break_in_a_text_starts_no_row():
    for text in ("a\r=1", "a\n=1", "a\r\n=1", 'a",=1', "a;=1"):
        assert cells(tabular.table([{"result": text}], ["result"])) == {"result": text}


def test_numbers_stay_numbers_and_none_is_an_empty_cell():
    assert cells(tabular.table([{"a": -60, "b": None, "c": 1.5}], ["a", "b", "c"])) == {"a": "-60", "b": "", "c": "1.5"}


@pytest.mark.parametrize("alias", [*DANGEROUS, "'=1", "''-1", "'quoted'", "'", "plain"], ids=repr)
def test_import_reads_the_exported_alias(alias):
    rows, errors = tabular.read(exported(alias=alias).encode())
    assert errors == []
    assert [row["alias"] for _, row in rows] == [alias]


def test_only_one_module_writes_csv():
    writers = [
        path.name
        for path in Path(nexmdm_cli.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("csv.writer", "csv.DictWriter")
    ]
    assert writers == ["tabular.py"]
