"""Brings one table's columns, constraints and indexes to the wanted ones."""

import re
from typing import NamedTuple

from sqlalchemy import Connection

from migrations.adoption import catalog
from migrations.adoption.keys import Keys, quoted
from migrations.adoption.shape import Table
from migrations.adoption.steps import Step, keep

# Never kept: the bcrypt hashes of tokens, and what people had in their devices' clipboards.
FORGOTTEN = {"devices": ("token_hash", "clipboard_content")}


class Column(NamedTuple):
    type: str
    collation: str
    not_null: bool
    default: str

    @classmethod
    def parse(cls, spec: str) -> "Column":
        found = re.fullmatch(r'(.+?)( COLLATE "[^"]+")?( NOT NULL)?(?: DEFAULT (.+))?', spec)
        if found is None:
            raise ValueError(f"no column's definition: {spec}")
        return cls(found[1], found[2] or "", bool(found[3]), found[4] or "")


def create(name: str, table: Table) -> str:
    columns = [f"{column} {_definition(spec)}" for column, spec in table.columns.items()]
    constraints = [f"CONSTRAINT {constraint} {text}" for constraint, text in table.constraints.items()]
    partition = f" PARTITION BY {table.partitioned_by}" if table.partitioned_by else ""
    statements = [f"CREATE TABLE {name} ({', '.join(columns + constraints)}){partition}"]
    if table.partitioned_by:
        statements.append(f"CREATE TABLE {name}_default PARTITION OF {name} DEFAULT")
    statements += [_create_index(index, name, text) for index, text in table.indexes.items()]
    return ";\n".join(statements)


def alter(db: Connection, name: str, table: Table, keys: Keys) -> list[Step]:
    have = {table.renamed.get(column, column): spec for column, spec in catalog.columns(db, name).items()}
    extra = [column for column in have if column not in table.columns]
    renames = [
        f"ALTER TABLE {name} RENAME COLUMN {old} TO {new}"
        for old, new in table.renamed.items()
        if old in catalog.columns(db, name)
    ]
    plan = keys.tables[name]
    changes, constraint_renames = _constraint_changes(name, table, keys)
    changes += [f"DROP COLUMN {quoted(column)}" for column in extra]
    for column, spec in table.columns.items():
        changes += _column_changes(column, have.get(column), spec)
    drops = [f"DROP INDEX {keys.name_of(name, key)}" for key in keys.drops(name) if not key.is_constraint]
    index_renames = [
        f"ALTER INDEX {keys.name_of(name, key)} RENAME TO {index}"
        for index, key in plan.indexes.items()
        if key and key.name != index
    ]
    creates = [_create_index(index, name, table.indexes[index]) for index, key in plan.indexes.items() if key is None]
    body = [f"ALTER TABLE {name} {', '.join(changes)}"] if changes else []
    statements = renames + drops + constraint_renames + index_renames + body + creates
    if not statements:
        return []
    rows = f"SELECT count(*) FROM {name}"
    steps = _keep_extra(name, table, renames, extra)
    return [*steps, Step(f"{name}: {_summary(changes, drops, creates)}", ";\n".join(statements), rows)]


def _keep_extra(name: str, table: Table, renames: list[str], extra: list[str]) -> list[Step]:
    kept = [column for column in extra if column not in FORGOTTEN.get(name, ())]
    if not kept:
        return []
    key = next((old for old, new in table.renamed.items() if renames and new == table.key), table.key)
    pairs = ", ".join(f"('{column}', to_jsonb({column}))" for column in kept)
    value = f"(SELECT jsonb_object_agg(n, v) FILTER (WHERE v IS NOT NULL) FROM (VALUES {pairs}) AS pair(n, v))"
    holds = " OR ".join(f"{column} IS NOT NULL" for column in kept)
    what = f"{name}: {', '.join(kept)} have no column here and are kept in old_server_values"
    return [
        Step(what, keep(name, key, value, f"{name} WHERE {holds}"), f"SELECT count(*) FROM {name} WHERE {holds}"),
    ]


def _column_changes(name: str, have: str | None, want: str) -> list[str]:
    if have == want:
        return []
    if have is None:
        return [f"ADD COLUMN {name} {_definition(want)}"]
    old, new = Column.parse(have), Column.parse(want)
    changes = []
    retyped = (old.type, old.collation) != (new.type, new.collation)
    filled = new.not_null and not old.not_null and new.default
    if (retyped and old.default) or (old.default and not new.default):
        changes.append(f"ALTER COLUMN {name} DROP DEFAULT")
    if retyped or filled:
        value = f"{name} AT TIME ZONE 'UTC'" if old.type.startswith("timestamp without") else f"{name}::{new.type}"
        value = f"coalesce({value}, {new.default})" if filled else value
        changes.append(f"ALTER COLUMN {name} TYPE {new.type}{new.collation} USING {value}")
    if new.default and (new.default != old.default or retyped):
        changes.append(f"ALTER COLUMN {name} SET DEFAULT {new.default}")
    if new.not_null != old.not_null:
        changes.append(f"ALTER COLUMN {name} {'SET' if new.not_null else 'DROP'} NOT NULL")
    return changes


def _constraint_changes(name: str, table: Table, keys: Keys) -> tuple[list[str], list[str]]:
    """(clauses of an ALTER TABLE, statements that only rename)."""
    plan = keys.tables[name]
    drops = [f"DROP CONSTRAINT {keys.name_of(name, key)}" for key in keys.drops(name) if key.is_constraint]
    missing = [wanted for wanted, key in plan.constraints.items() if key is None]
    renames = [
        f"ALTER TABLE {name} RENAME CONSTRAINT {keys.name_of(name, key)} TO {wanted}"
        for wanted, key in plan.constraints.items()
        if key and key.name != wanted
    ]
    return drops + [f"ADD CONSTRAINT {wanted} {table.constraints[wanted]}" for wanted in missing], renames


def _create_index(index: str, table: str, text: str) -> str:
    return f"CREATE INDEX {index} ON {table} USING {text}"


def _definition(spec: str) -> str:
    """As CREATE TABLE takes it."""
    if spec.endswith(" DEFAULT serial"):
        return {"integer": "serial", "bigint": "bigserial"}[Column.parse(spec).type]
    return spec


def _summary(changes: list[str], drops: list[str], creates: list[str]) -> str:
    altered = {change.split()[2] for change in changes if change.startswith("ALTER COLUMN")}
    parts = [
        f"{len(altered)} columns change" if altered else "",
        *(change.lower() for change in changes if change.startswith(("ADD COLUMN", "DROP COLUMN"))),
        f"{len(drops)} indexes go" if drops else "",
        f"{len(creates)} indexes come" if creates else "",
    ]
    return ", ".join(part for part in parts if part) or "constraints are brought to ours"
