"""Previous databases whose constraints and indexes exist twice, under each other's names, under any, or not at all.

Each key of each adopted table is varied in turn, in a database of the previous server and in one of this project at the
same revision. The result of the plan is compared with the expected shape, in a transaction that is rolled back. Then
databases with all keys varied are migrated through every revision.
"""

import re
import uuid
from collections.abc import Iterator
from itertools import zip_longest

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from migrations.adoption import catalog, plan
from migrations.adoption.keys import quoted
from migrations.adoption.shape import TABLES
from tests.migrations import old_server
from tests.support.databases import url_of
from tests.support.migrations import schema_differences
from tests.support.postgres import run_sql, upgrade

WANTED = sorted({name for table in TABLES.values() for name in (*table.constraints, *table.indexes)})
# Tables that this server does not use. Their foreign keys come to depend on keys of this project.
NEIGHBOURS = """
CREATE TABLE sessions (id serial PRIMARY KEY, device_id varchar REFERENCES devices (id));
CREATE TABLE labels (device_id varchar NOT NULL);
"""
# Names that the project's keys must have, and that a previous database may already use.
TAKEN = """
ALTER TABLE sessions ADD CONSTRAINT uq_enrollment_token_hash UNIQUE (device_id);
CREATE INDEX pk_apk_versions ON labels (device_id);
"""


class Found:
    """A constraint or an index of a database. table, name, text: as in the catalog."""

    def __init__(self, table: str, name: str, text: str, is_constraint: bool) -> None:
        self.table, self.name, self.text, self.is_constraint = table, name, text, is_constraint

    def rename(self, name: str) -> str:
        if self.is_constraint:
            return f"ALTER TABLE {self.table} RENAME CONSTRAINT {quoted(self.name)} TO {quoted(name)}"
        return f"ALTER INDEX {quoted(self.name)} RENAME TO {quoted(name)}"

    def drop(self) -> str:
        if self.is_constraint:
            return f"ALTER TABLE {self.table} DROP CONSTRAINT IF EXISTS {quoted(self.name)} CASCADE"
        return f"DROP INDEX IF EXISTS {quoted(self.name)} CASCADE"

    def again(self, name: str) -> str:
        """SQL for a second key with the same definition; for a primary key, a unique one."""
        if self.is_constraint:
            text = self.text.replace("PRIMARY KEY", "UNIQUE")
            return f"ALTER TABLE {self.table} ADD CONSTRAINT {quoted(name)} {text}"
        unique, _, text = self.text.rpartition("btree ")
        return f"CREATE {unique}INDEX {quoted(name)} ON {self.table} USING btree {text}"

    def as_an_index(self, name: str) -> str:
        return f"CREATE UNIQUE INDEX {quoted(name)} ON {self.table} ({self.text[self.text.index('(') + 1 :]}"


@pytest.fixture(scope="module", params=["old server", "ours"])
def engine(server: str, request: pytest.FixtureRequest) -> Iterator:
    name = f"keys_{uuid.uuid4().hex[:8]}"
    run_sql(server, f"CREATE DATABASE {name}")
    url = url_of(server, name)
    if request.param == "old server":
        run_sql(url, old_server.create("a43a2b52588a", completion=True, last_status=True))
        run_sql(url, old_server.fill(10, 6))
    else:
        upgrade(url, "c73b10a6beaa")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"), poolclass=NullPool)
    run_sql(url, NEIGHBOURS, *([TAKEN] if request.param == "old server" else []))
    yield engine
    engine.dispose()
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def keys(db: Connection) -> list[Found]:
    return [Found(table, *row[:3]) for table in TABLES for row in catalog.keys(db, table)]


def tries(db: Connection) -> Iterator[tuple[str, list[str]]]:
    """(what was done, the statements that do it), for every key in turn; each table is handled by itself."""
    found = keys(db)
    taken = {key.name for key in found} | {name for name in WANTED if name in TAKEN}
    of_tables = [list(_of_one(db, key, taken)) for table in TABLES for key in [[k for k in found if k.table == table]]]
    for together in zip_longest(*of_tables, fillvalue=("", [])):
        yield " and ".join(what for what, _ in together if what), [one for _, changes in together for one in changes]
    free = [name for name in WANTED if name not in taken]
    for number, key in enumerate(found):
        other = free[number % len(free)] if free and number % 2 else found[(number + 7) % len(found)].name
        swapped = next((k for k in found if k.name == other), None)
        aside = [swapped.rename("nexmdm_aside")] if swapped else []
        yield f"{key.table}.{key.name} under the name of {other}", [*aside, key.rename(other)]


def _of_one(db: Connection, of_table: list[Found], taken: set[str]) -> Iterator[tuple[str, list[str]]]:
    for key in of_table:
        what, odd = f"{key.table}.{key.name}", f'Odd "name" of {key.table}'
        yield f"{what} dropped", [key.drop()]
        yield f"{what} renamed", [key.rename(odd)]
        yield f"{what} twice", [key.again(odd)]
        wanted = next((n for n, text in _wanted(key.table).items() if text == key.text), None)
        if wanted and wanted != key.name and wanted not in taken:
            yield f"{what} twice, also under our name", [key.again(wanted)]
        if key.text.startswith(("UNIQUE (", "PRIMARY KEY (")):
            yield f"{what} twice, once as an index", [key.as_an_index(odd)]
            leaning = f"ALTER TABLE labels ADD CONSTRAINT fk_labels_{key.table} {_reference(key)}"
            yield f"{what} with a neighbour's foreign key", [*_columns(db, key), key.as_an_index(odd), leaning]


def _wanted(table: str) -> dict[str, str]:
    return {**TABLES[table].constraints, **TABLES[table].indexes}


def _columns(db: Connection, key: Found) -> list[str]:
    types = catalog.columns(db, key.table)
    names = [name.strip() for name in key.text[key.text.index("(") + 1 : -1].split(",")]
    return [f"ALTER TABLE labels ADD COLUMN {key.table}_{n} {types[n].partition(' NOT')[0]}" for n in names]


def _reference(key: Found) -> str:
    names = [name.strip() for name in key.text[key.text.index("(") + 1 : -1].split(",")]
    own = ", ".join(f"{key.table}_{name}" for name in names)
    return f"FOREIGN KEY ({own}) REFERENCES {key.table} ({', '.join(names)})"


def adopted(db: Connection) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """{table: (constraints, indexes)} after the plan has run."""
    plan.run(db, plan.plan(db))
    shown = {}
    for table in TABLES:
        rows = catalog.keys(db, table)
        shown[table] = ({n: text for n, text, c, *_ in rows if c}, {n: text for n, text, c, *_ in rows if not c})
    return shown


EXPECTED = {name: (dict(table.constraints), dict(table.indexes)) for name, table in TABLES.items()}


def test_each_varied_key_is_repaired(engine):
    with engine.connect() as db:
        tried = list(tries(db))
        db.rollback()
        wrong = {}
        for what, changes in tried:
            try:
                for change in changes:
                    db.exec_driver_sql(change, execution_options={"no_parameters": True})
                before = _of_neighbours(db)
                if adopted(db) != EXPECTED:
                    wrong[what] = "another shape"
                elif _of_neighbours(db) != {found for found in before if _references_a_key(found[2])}:
                    wrong[what] = "a neighbour's foreign keys changed"
            except Exception as error:
                wrong[what] = str(error)
            db.rollback()
        assert not wrong, "\n".join(f"{what}: {error}" for what, error in wrong.items())
        assert len(tried) > 40


def _of_neighbours(db: Connection) -> set[tuple[str, str, str]]:
    sql = """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
             WHERE contype = 'f' AND conparentid = 0
               AND conrelid::regclass::text IN ('sessions', 'labels', 'commands')"""
    return {(table, name, text.replace("(event_id)", "(id)")) for table, name, text in db.exec_driver_sql(sql)}


def _references_a_key(definition: str) -> bool:
    """Whether the referenced columns are a key in this schema too."""
    table, columns = re.search(r"REFERENCES (\w+)\((.*?)\)", definition).groups()
    texts = TABLES[table].constraints.values()
    return any(text in texts for text in (f"PRIMARY KEY ({columns})", f"UNIQUE ({columns})"))


def _everything(db: Connection, how: str) -> Iterator[str]:
    found = keys(db)
    if how == "dropped":
        # Dependent keys are dropped with it; CASCADE may have dropped some before.
        for key in sorted(found, key=lambda key: not key.text.startswith("FOREIGN")):
            yield key.drop()
    elif how == "twice":
        for number, key in enumerate(found):
            yield key.again(f"second_{number}")
    else:
        free = [name for name in WANTED if name not in TAKEN]
        for number, key in enumerate(found):
            yield key.rename(f"nexmdm_aside_{number}")
        for number, key in enumerate(found):
            aside = Found(key.table, f"nexmdm_aside_{number}", key.text, key.is_constraint)
            yield aside.rename(free[number] if number < len(free) else f"other_{number}")


@pytest.mark.parametrize("how", ["dropped", "twice", "under each other's names"])
def test_all_varied_keys_survive_every_revision(empty: str, how: str):
    run_sql(empty, old_server.create("a43a2b52588a", completion=True, last_status=True))
    run_sql(empty, old_server.fill(10, 6), NEIGHBOURS, TAKEN)
    engine = create_engine(empty.replace("postgresql://", "postgresql+psycopg2://"), poolclass=NullPool)
    with engine.begin() as db:
        for change in list(_everything(db, how)):
            db.exec_driver_sql(change, execution_options={"no_parameters": True})
    upgrade(empty)
    assert schema_differences(empty) == []


def test_both_unique_keys_on_a_token_hash_become_one(empty: str):
    """The previous server's code creates both: its models one, its migration the other."""
    run_sql(empty, old_server.create("a43a2b52588a", completion=False, last_status=False))
    run_sql(empty, "ALTER TABLE enrollment_tokens ADD CONSTRAINT uq_enrollment_token_hash UNIQUE (token_hash)")
    upgrade(empty)
    assert schema_differences(empty) == []


def test_rows_without_their_referenced_row_are_set_aside(engine):
    with engine.connect() as db:
        for table, name, _, _ in [row for row in catalog.names(db) if row[2]]:
            if table in TABLES and any(key.name == name and key.text.startswith("FOREIGN") for key in keys(db)):
                db.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {quoted(name)}")
        db.exec_driver_sql(
            "INSERT INTO fcm_dispatches (request_id, device_id, action, sent_at, fcm_status, retries)"
            " VALUES ('orphan', 'gone', 'ping', now(), 'pending', 0)"
        )
        assert adopted(db) == EXPECTED
        assert db.exec_driver_sql("SELECT count(*) FROM fcm_dispatches WHERE device_id = 'gone'").scalar() == 0
        kept = "SELECT old->>'device_id' FROM old_server_values WHERE row_key = 'orphan'"
        assert db.exec_driver_sql(kept).scalar() == "gone"
        db.rollback()
