"""What PostgreSQL's catalog says of a table, in the words of `shape`."""

from typing import Any

from sqlalchemy import Connection, text


def exists(db: Connection, table: str) -> bool:
    return bool(_rows(db, "SELECT to_regclass(:table) IS NOT NULL", table)[0][0])


def columns(db: Connection, table: str) -> dict[str, str]:
    """Name -> `type COLLATE "x" NOT NULL DEFAULT y`; the default of a serial column is `serial`."""
    return dict(_rows(db, _COLUMNS, table))


def constraints(db: Connection, table: str) -> dict[str, str]:
    return dict(_rows(db, _CONSTRAINTS, table))


def indexes(db: Connection, table: str) -> dict[str, str]:
    """Without those that stand behind a constraint; a unique one reads `UNIQUE btree (..)`."""
    return dict(_rows(db, _INDEXES, table))


def partitioned_by(db: Connection, table: str) -> str | None:
    return _rows(db, "SELECT pg_get_partkeydef(to_regclass(:table))", table)[0][0]


def sequence(db: Connection, table: str, column: str) -> str | None:
    return db.execute(
        text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table, "column": column}
    ).scalar()


def _rows(db: Connection, sql: str, table: str) -> list[Any]:
    return list(db.execute(text(sql), {"table": table}))


_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod)
    || CASE WHEN attcollation <> typcollation THEN ' COLLATE "' || collname || '"' ELSE '' END
    || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
    || coalesce(' DEFAULT ' || CASE WHEN attidentity <> '' OR pg_get_expr(adbin, adrelid) LIKE 'nextval(%' THEN 'serial'
                                    ELSE pg_get_expr(adbin, adrelid) END, '')
FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_collation ON pg_collation.oid = attcollation
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
"""

# PostgreSQL 18 also lists NOT NULL (contype n); columns() has it already.
_CONSTRAINTS = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = to_regclass(:table) AND contype IN ('p', 'u', 'f', 'c', 'x')
ORDER BY conname
"""

_INDEXES = """
SELECT c.relname, CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END
    || split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(:table)
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x'))
ORDER BY c.relname
"""
