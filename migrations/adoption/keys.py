"""Constraints and indexes: which of those that the tables have stay, and what makes way before the tables change.

An old database may have each of ours twice, under another's name or under any, since the old server's models and its
migrations each made their own. A definition decides what stays; the names are put right afterwards. The names of
indexes, and of the constraints that stand on one, belong to the whole schema, so all tables are looked at together.
"""

import re
from typing import NamedTuple

from sqlalchemy import Connection

from migrations.adoption import catalog
from migrations.adoption.shape import TABLES, Table
from migrations.adoption.steps import Step


class Key(NamedTuple):
    """A constraint or an index as it is. leaning: the foreign keys that stand on it, (table, name, definition)."""

    name: str
    text: str
    is_constraint: bool
    is_unique_index: bool
    leaning: tuple[tuple[str, str, str], ...]


class TablePlan(NamedTuple):
    """constraints and indexes: wanted name -> the one that stays, None to be made. going: those that do not stay."""

    constraints: dict[str, Key | None]
    indexes: dict[str, Key | None]
    going: list[Key]


class Keys:
    """What becomes of the keys of all tables.

    Args:
        rebuilt: tables that are made anew: their keys go with the old table.
    """

    def __init__(self, db: Connection, rebuilt: set[str]) -> None:
        self.tables: dict[str, TablePlan] = {}
        for name, table in TABLES.items():
            if catalog.exists(db, name):
                self.tables[name] = _table_plan(db, name, table, rebuilt=name in rebuilt)
        self._lost: set[tuple[str, str]] = set()
        self._dropped_first = self._foreign_keys_in_the_way()
        self._temporary: dict[tuple[str, str], str] = {}
        self._make_way = self._renamed_aside(db)

    def name_of(self, table: str, key: Key) -> str:
        """Under which it is there when the table changes, quoted."""
        return quoted(self._temporary.get((table, key.name), key.name))

    def drops(self, table: str) -> list[Key]:
        """Those that do not stay and are still there when the table changes."""
        plan = self.tables[table]
        return [key for key in plan.going if (table, key.name) not in self._dropped_first]

    def before(self) -> list[Step]:
        """The steps before the tables change."""
        drops = [f"ALTER TABLE {table} DROP CONSTRAINT {quoted(name)}" for table, name in self._dropped_first]
        statements = drops + self._make_way
        if not statements:
            return []
        what = "constraints and indexes under each other's names make way"
        for table, name in sorted(self._lost):
            what += f"; {table} loses its foreign key {name}, since no key of ours is like the one that it stood on"
        return [Step(what, ";\n".join(statements))]

    def after(self) -> list[Step]:
        """The steps after it: other tables' foreign keys stand on the keys that stayed."""
        others = [
            f"ALTER TABLE {table} ADD CONSTRAINT {quoted(name)} {text}"
            for (table, name), text in self._dropped_first.items()
            if table not in TABLES and (table, name) not in self._lost
        ]
        return [Step("foreign keys of other tables come back", ";\n".join(others))] if others else []

    def _foreign_keys_in_the_way(self) -> dict[tuple[str, str], str]:
        """{(table, name): definition} of what stands on a key that goes; `_lost` are those that cannot come back."""
        found: dict[tuple[str, str], str] = {}
        for name, plan in self.tables.items():
            ours = {_columns(text) for text in TABLES[name].constraints.values() if "FOREIGN" not in text}
            for key in plan.going:
                leaning = {(table, foreign): text for table, foreign, text in key.leaning}
                found |= leaning
                if _columns(key.text) not in ours:
                    self._lost |= {(table, foreign) for table, foreign in leaning if table not in TABLES}
        for table, plan in self.tables.items():
            # Ours are made again as missing ones.
            for wanted, kept in plan.constraints.items():
                if kept and (table, kept.name) in found:
                    plan.constraints[wanted] = None
        return found

    def _renamed_aside(self, db: Connection) -> list[str]:
        """Renames of whatever has a name that another is to have."""
        wanted = {name for table in TABLES.values() for name in (*table.constraints, *table.indexes)}
        right = set()
        for table, plan in self.tables.items():
            kept = {**plan.constraints, **plan.indexes}
            right |= {(table, name) for name, key in kept.items() if key and key.name == name}
        statements = []
        for number, (table, name, is_constraint, on_index) in enumerate(catalog.names(db)):
            of_schema = on_index and name in wanted
            of_table = table in TABLES and name in TABLES[table].constraints
            if not (of_schema or of_table) or (table, name) in right or (table, name) in self._dropped_first:
                continue
            temporary = f"nexmdm_adopted_{number}"
            self._temporary[table, name] = temporary
            rename = f"ALTER TABLE {table} RENAME CONSTRAINT" if is_constraint else "ALTER INDEX"
            to = "TO" if is_constraint else "RENAME TO"
            statements.append(f"{rename} {quoted(name)} {to} {temporary}")
        return statements


def quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _table_plan(db: Connection, name: str, table: Table, *, rebuilt: bool) -> TablePlan:
    keys = [_with_new_columns(Key(*row), table) for row in catalog.keys(db, name)]
    wanted_constraints = {} if rebuilt else table.constraints
    wanted_indexes = {} if rebuilt else table.indexes
    constraints = {n: _choose(keys, n, text, is_constraint=True) for n, text in wanted_constraints.items()}
    indexes = {n: _choose(keys, n, text, is_constraint=False) for n, text in wanted_indexes.items()}
    kept = [*constraints.values(), *indexes.values()]
    return TablePlan(constraints, indexes, [key for key in keys if key not in kept])


def _columns(definition: str) -> frozenset[str]:
    """Of a key: `UNIQUE (a, b)`, `UNIQUE btree (b, a)`."""
    return frozenset(re.findall(r"\w+", definition.partition("(")[2].partition(")")[0]))


def _choose(keys: list[Key], name: str, text: str, *, is_constraint: bool) -> Key | None:
    """Of several alike the one that foreign keys stand on, then the one with our name."""
    alike = [key for key in keys if (key.text, key.is_constraint) == (text, is_constraint)]
    return max(alike, key=lambda key: (len(key.leaning), key.name == name), default=None)


def _with_new_columns(key: Key, table: Table) -> Key:
    text = key.text
    for old, new in table.renamed.items():
        text = re.sub(rf"\b{old}\b", new, text)
    leaning = tuple((other, name, definition) for other, name, definition in key.leaning or ())
    return key._replace(text=text, leaning=leaning)
