"""check-schema finds every object that is missing from the schema."""

import itertools
import subprocess
import sys

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from nexmdm.runtime import settings
from nexmdm.schema import check
from nexmdm.schema.models import Base
from sqlalchemy import Connection, create_engine

from tests.support.api import ROOT
from tests.support.postgres import run_sql

# What the catalog should list, from the models alone and not from the code under test.
COLUMNS = [(table.name, column.name) for table in Base.metadata.sorted_tables for column in table.columns]
INDEXES = [(table.name, index.name) for table in Base.metadata.sorted_tables for index in table.indexes]
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname FROM pg_constraint
    WHERE conrelid = ANY(ARRAY(SELECT to_regclass(t) FROM unnest(%s) AS t)) AND contype IN ('p', 'u', 'f', 'c')
    AND conparentid = 0"""


@pytest.fixture
def connection(url: str):
    engine = create_engine(settings.load().sqlalchemy_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def found(connection: Connection) -> list[str]:
    return list(check.differences(connection))


def without(connection: Connection, *statements: str) -> list[str]:
    """The differences after the statements have run; they are rolled back."""
    with connection.begin() as transaction:
        for statement in statements:
            connection.exec_driver_sql(statement)
        lines = found(connection)
        transaction.rollback()
    return lines


def test_migrated_database_passes_the_check(url: str):
    done = subprocess.run([sys.executable, "-m", "nexmdm.schema"], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.returncode) == ("Schema validation passed!\n", 0), done.stderr


def test_difference_is_one_line_and_exit_code_1(url: str):
    run_sql(url, "DROP INDEX ix_fcm_dispatches_open")
    done = subprocess.run([sys.executable, "-m", "nexmdm.schema"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == [
        "fcm_dispatches: index ix_fcm_dispatches_open is missing"
    ]


def one_of_each(objects: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """The (table, name) pairs in rounds of one per table, because each check reads the whole catalog."""
    by_table = {table: [entry for entry in objects if entry[0] == table] for table, _ in objects}
    return [[entry for entry in found if entry] for found in itertools.zip_longest(*by_table.values())]


def heads(lines: list[str]) -> list[str]:
    return [line.partition(",")[0] for line in lines]


def test_every_dropped_column_is_found(connection: Connection):
    # The partition key cannot be dropped.
    columns = [column for column in COLUMNS if column != ("device_heartbeats", "bucket")]
    assert len(columns) > 60
    for some in one_of_each(columns):
        lines = without(connection, *(f"ALTER TABLE {table} DROP {column} CASCADE" for table, column in some))
        assert {f"{table}: column {column} is missing" for table, column in some} <= set(heads(lines))


def test_every_dropped_index_is_found(connection: Connection):
    for some in one_of_each(INDEXES):
        lines = without(connection, *(f"DROP INDEX {index}" for _, index in some))
        assert sorted(heads(lines)) == sorted(f"{table}: index {index} is missing" for table, index in some)


def test_every_dropped_constraint_is_found(connection: Connection):
    constraints = [tuple(row) for row in connection.exec_driver_sql(CONSTRAINTS, (list(Base.metadata.tables),))]
    connection.rollback()
    assert len(constraints) > 20
    for some in one_of_each(constraints):
        drops = (f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name} CASCADE" for table, name in some)
        lines = without(connection, *drops)
        for table, name in some:
            missing = [head for head, line in zip(heads(lines), lines, strict=True) if f"constraint {name} " in line]
            assert missing == [f"{table}: constraint {name} is missing"]


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("ALTER TABLE devices ALTER model SET NOT NULL", "devices: column model is `text NOT NULL`, should be `text`"),
        ("ALTER TABLE devices ALTER sdk_int TYPE bigint", "devices: column sdk_int is `bigint`, should be `integer`"),
        ("ALTER TABLE devices ADD COLUMN colour text", "devices: column colour is not in the models"),
        (
            "ALTER TABLE devices ALTER alias TYPE text COLLATE \"default\"",
            "devices: column alias is `text NOT NULL`, should be `text COLLATE \"C\" NOT NULL`",
        ),
        ("DROP TABLE apk_installations", "apk_installations: the table is missing"),
        ("DROP TABLE device_heartbeats_default", "device_heartbeats: the default partition is missing"),
        ("UPDATE alembic_version SET version_num = 'c73b10a6beaa'", "alembic_version: the revision is c73b10a6beaa"),
        ("CREATE INDEX own ON devices (model)", "devices: index own is not in the models"),
    ],
)  # fmt: skip
def test_difference_is_named(connection: Connection, statement: str, line: str):
    lines = without(connection, statement)
    assert any(found.startswith(line) for found in lines), lines


def test_invalid_index_is_found(url: str, connection: Connection):
    run_sql(url, "INSERT INTO devices (id, alias, model) VALUES ('1', 'a', 'x'), ('2', 'b', 'x')")
    run_sql(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'uq_devices_live_alias'::regclass")
    (line,) = found(connection)
    assert line.startswith("devices: index uq_devices_live_alias is `")
    assert " INVALID`, should be " in line


def test_constraint_that_was_never_validated_is_found(connection: Connection):
    statement = """ALTER TABLE devices DROP CONSTRAINT ck_devices_alias_length,
        ADD CONSTRAINT ck_devices_alias_length CHECK (char_length(alias) BETWEEN 1 AND 200) NOT VALID"""
    (line,) = without(connection, statement)
    assert line.startswith("devices: constraint ck_devices_alias_length is `")
    assert " NOT VALID`, should be " in line


def test_missing_future_partitions_are_found(url: str, connection: Connection):
    run_sql(
        url,
        """DO $$ DECLARE p regclass; BEGIN
            FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'device_heartbeats'::regclass
                AND inhrelid <> 'device_heartbeats_default'::regclass
            LOOP EXECUTE 'DROP TABLE ' || p; END LOOP; END $$""",
    )
    lines = found(connection)
    assert len(lines) == 9
    assert all("is missing; fix: run the cleanup function" in line for line in lines)


def test_expected_revision_is_the_head():
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    assert script.get_current_head() == check.REVISION


def test_check_leaves_nothing_behind(connection: Connection):
    found(connection)
    connection.rollback()
    schemas = connection.exec_driver_sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'nexmdm%%'").all()
    assert schemas == []


def test_missing_function_is_found(connection: Connection):
    (line,) = without(connection, "DROP FUNCTION record_heartbeats_v1")
    assert line.startswith("record_heartbeats_v1: the function is missing; fix:")
