"""A reported field is declared once; everything else that names it agrees with the declaration."""

import json
import re

import pytest
from nexmdm.devices.fields import FIELDS, HISTORY, RECORD_HEARTBEATS, Field, sql_type
from nexmdm.runtime.database import Database

from migrations.sql import frozen
from tests.support import agent
from tests.support.api import ROOT, call, enroll

SQL = frozen(RECORD_HEARTBEATS)
TYPES = {"integer": "int", "bigint": "int8", "double precision": "float8", "boolean": "bool", "text": "text"}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_heartbeat_function_reads_and_stores_each_field(field: Field):
    assert re.search(rf"\b{field.name} {TYPES[sql_type(field)]}[,\s]", SQL), (
        "the field is missing from the function's list of members"
    )
    stored = (
        f"{field.name} = excluded.{field.name}" if field in HISTORY else f"{field.name} = coalesce(fact.{field.name}"
    )
    assert stored in SQL
    assert len(re.findall(rf"\b{field.name}\b", SQL)) >= 6


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_each_reported_field_is_documented(field: Field):
    row = next(
        line for line in (ROOT / "docs/device.md").read_text().splitlines() if line.startswith(f"| `{field.name}` |")
    )
    assert field.about in row
    assert all(f"`{path}`" in row for path in field.paths)


def test_api_returns_each_field_that_the_agent_sent(db: Database):
    device, token = enroll()
    assert call("POST", "/v1/heartbeat", agent.heartbeat(), token=token).status == 200
    shown = call("GET", f"/v1/devices/{device}").json
    listed = call("GET", "/v1/devices").json["items"][0]
    (heartbeat,) = call("GET", f"/v1/devices/{device}/heartbeats").json["items"]
    expected = {**agent.COLUMNS, **agent.DEVICE_COLUMNS}
    for field in FIELDS:
        assert shown[field.name] == listed[field.name] == expected[field.name]
        assert field not in HISTORY or heartbeat[field.name] == expected[field.name]


def test_openapi_document_names_label_and_unit():
    schemas = json.loads((ROOT / "docs/openapi.json").read_text())["components"]["schemas"]
    for field in FIELDS:
        told = schemas["Device"]["properties"][field.name]
        assert (told.get("title", ""), told.get("x-unit", "")) == (field.label, field.unit)
