"""Compare the database's schema with the models: `python -m nexmdm.schema`, `make check-schema`.

The models' tables are created in a separate schema, both catalogs are read with the same queries, and the transaction
is rolled back. This way PostgreSQL itself determines how a constraint is written. Nothing is changed, and no table is
locked.
"""

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from nexmdm.heartbeats import partitions
from nexmdm.runtime import settings
from nexmdm.runtime.database import statement
from nexmdm.schema import grants
from nexmdm.schema.models import Base

REVISION = "5eed0a1b0005"  # the head of migrations/, which is not part of the layer; a test compares them
COVERED_AHEAD = timedelta(days=2)
MIGRATE = "alembic upgrade head"

Objects = dict[tuple[str, str, str], str]  # (table, kind, name) -> definition


def main() -> None:
    try:
        engine = create_engine(settings.load().sqlalchemy_url, poolclass=NullPool, hide_parameters=True)
        with engine.connect() as db:
            found = list(differences(db))
    except (settings.SettingsError, DBAPIError) as error:
        sys.exit(f"check-schema: {getattr(error, 'orig', error)}")
    for line in found:
        print(line)
    if found:
        sys.exit(1)
    print("Schema validation passed!")


def differences(db: Connection) -> Iterator[str]:
    """One line per difference."""
    wrong = _wrong_revision(db)
    if wrong:
        yield wrong
    with db.begin_nested() if db.in_transaction() else db.begin() as transaction:
        try:
            here = grants.rows(db, "SELECT current_schema()")[0][0]
            actual, expected = objects(db, here), _expected(db)
        finally:
            transaction.rollback()
    for name in grants.FUNCTIONS:
        if not grants.rows(db, f"SELECT FROM pg_proc WHERE oid = to_regproc('{name}')"):
            yield f"{name}: the function is missing; fix: run its CREATE FUNCTION from migrations/sql"
    missing_tables = {table for table, _, _ in expected} - {table for table, _, _ in actual}
    for table in sorted(missing_tables):
        yield f"{table}: the table is missing; fix: {MIGRATE}"
    for key in sorted(expected.keys() | actual.keys()):
        if key[0] not in missing_tables and expected.get(key) != actual.get(key):
            yield _line(key, expected.get(key), actual.get(key))
    yield from grants.differences(db)
    if "device_heartbeats" not in missing_tables:
        yield from _partition_differences(db)


def objects(db: Connection, schema: str) -> Objects:
    """The definitions of our tables in `schema`, as PostgreSQL writes them."""
    db.exec_driver_sql(f'SET LOCAL search_path = "{schema}"')
    tables = ", ".join(f"'{table}'" for table in Base.metadata.tables)
    found = {(table, kind, name): text for table, kind, name, text in grants.rows(db, _OBJECTS.format(tables=tables))}
    # PostgreSQL chooses the number in a sequence's name.
    return {key: re.sub(r"DEFAULT nextval\(.*", "DEFAULT serial", text) for key, text in found.items()}


def _expected(db: Connection) -> Objects:
    schema = f"nexmdm_expected_{os.getpid()}"
    db.exec_driver_sql(f"CREATE SCHEMA {schema}")
    Base.metadata.create_all(db.execution_options(schema_translate_map={None: schema}), checkfirst=False)
    return objects(db, schema)


def _line(key: tuple[str, str, str], expected: str | None, actual: str | None) -> str:
    table, kind, name = key
    if actual is None:
        return f"{table}: {kind} {name} is missing, should be `{expected}`"
    if expected is None:
        return f"{table}: {kind} {name} is not in the models; it is `{actual}`"
    return f"{table}: {kind} {name} is `{actual}`, should be `{expected}`"


def _wrong_revision(db: Connection) -> str | None:
    if not grants.rows(db, "SELECT FROM pg_class WHERE oid = to_regclass('alembic_version')"):
        return f"alembic_version: the table is missing; fix: {MIGRATE}"
    found = ", ".join(row[0] for row in grants.rows(db, "SELECT version_num FROM alembic_version")) or "none"
    if found != REVISION:
        return f"alembic_version: the revision is {found}, should be {REVISION}; fix: {MIGRATE}"
    return None


def _partition_differences(db: Connection) -> Iterator[str]:
    fix = "fix: run the cleanup function (`python -m local.invoke cleanup`)"
    present = {row[0] for row in grants.rows(db, _PARTITIONS)}
    if "device_heartbeats_default" not in present:
        make = "CREATE TABLE device_heartbeats_default PARTITION OF device_heartbeats DEFAULT"
        yield f"device_heartbeats: the default partition is missing; fix: {make}"
    now = datetime.now(UTC)
    for start in partitions.wanted(now, settings.load()):
        if start <= now + COVERED_AHEAD and start + partitions.WIDTH > now and partitions.name(start) not in present:
            yield f"device_heartbeats: partition {partitions.name(start)} is missing; {fix}"


_PARTITIONS = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = to_regclass('device_heartbeats')
"""

# NOT NULL is part of the column's definition; PostgreSQL 18 also lists it as a constraint (contype n).
_OBJECTS = statement(__package__, "objects")
