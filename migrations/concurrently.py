"""Indexes on tables that are in use. Each belongs in a revision of its own, on a direct connection.

CREATE INDEX CONCURRENTLY runs outside of a transaction, so a crash may leave an invalid index behind: it is dropped and
made again. A partitioned table takes no CONCURRENTLY: the parent's index is made ON ONLY it, each partition's
concurrently, and attaching the last one makes the parent's valid.
"""

from typing import Any

from alembic import op
from sqlalchemy import Connection


def create_index(
    name: str, table: str, columns: str, *, unique: bool = False, where: str | None = None, using: str = "btree"
) -> None:
    """columns: as between the parentheses of CREATE INDEX."""
    with op.get_context().autocommit_block():
        db = op.get_bind()
        tail = f"USING {using} ({columns})" + (f" WHERE {where}" if where else "")
        kind = "UNIQUE INDEX" if unique else "INDEX"
        if not _rows(db, f"SELECT FROM pg_class WHERE oid = '{table}'::regclass AND relkind = 'p'"):
            _valid_index(db, kind, name, table, tail)
            return
        db.exec_driver_sql(f"CREATE {kind} IF NOT EXISTS {name} ON ONLY {table} {tail}")
        for (partition,) in _rows(
            db, f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{table}'::regclass"
        ):
            own = f"{partition}_{name}"[:63]
            _valid_index(db, kind, own, partition, tail)
            db.exec_driver_sql(f"ALTER INDEX {name} ATTACH PARTITION {own}")
        if not _is_valid(db, name):
            raise RuntimeError(f"{name} is not valid: {table} got a partition meanwhile; run this again")


def drop_index(name: str, table: str) -> None:
    with op.get_context().autocommit_block():
        partitioned = _rows(op.get_bind(), f"SELECT FROM pg_class WHERE oid = '{table}'::regclass AND relkind = 'p'")
        op.get_bind().exec_driver_sql(f"DROP INDEX {'' if partitioned else 'CONCURRENTLY'} IF EXISTS {name}")


def _valid_index(db: Connection, kind: str, name: str, table: str, tail: str) -> None:
    if _is_valid(db, name):
        return
    db.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    db.exec_driver_sql(f"CREATE {kind} CONCURRENTLY {name} ON {table} {tail}")
    if not _is_valid(db, name):
        raise RuntimeError(f"{name} is not valid after it was made; run this again")


def _is_valid(db: Connection, name: str) -> bool:
    return bool(_rows(db, f"SELECT FROM pg_index WHERE indexrelid = to_regclass('{name}') AND indisvalid"))


def _rows(db: Connection, sql: str) -> list[Any]:
    return list(db.exec_driver_sql(sql))
