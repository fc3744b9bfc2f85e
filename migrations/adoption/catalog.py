"""What PostgreSQL's catalog says of a table, in the words of `shape`."""

from typing import Any

from sqlalchemy import Connection, text


def exists(db: Connection, table: str) -> bool:
    return bool(_rows(db, "SELECT to_regclass(:table) IS NOT NULL", table)[0][0])


def columns(db: Connection, table: str) -> dict[str, str]:
    """Name -> `type COLLATE "x" NOT NULL DEFAULT y`; the default of a serial column is `serial`."""
    return dict(_rows(db, _COLUMNS, table))


def keys(db: Connection, table: str) -> list[Any]:
    """(name, definition, is a constraint, is a unique index, [table, name, definition] of each foreign key on it)

    Without the indexes that stand behind a constraint. A unique index reads `UNIQUE btree (..)`.
    """
    return _rows(db, _KEYS, table)


def names(db: Connection) -> list[Any]:
    """(table, name, is a constraint, is or stands on an index) of everything in the schema, NOT NULL included."""
    return list(db.execute(text(_NAMES)))


def partitioned_by(db: Connection, table: str) -> str | None:
    found: str | None = _rows(db, "SELECT pg_get_partkeydef(to_regclass(:table))", table)[0][0]
    return found


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

# PostgreSQL 18 also lists NOT NULL (contype n); columns() has it already. A foreign key stands on an index; one that
# belongs to a partition comes and goes with its parent's.
_KEYS = """
WITH leaning AS (
    SELECT conindid, json_agg(json_build_array(conrelid::regclass::text, conname, pg_get_constraintdef(oid))
        ORDER BY conrelid, conname) AS them
    FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 GROUP BY conindid
)
SELECT conname, pg_get_constraintdef(oid), true, false, CASE WHEN contype IN ('p', 'u') THEN them END
FROM pg_constraint c LEFT JOIN leaning ON leaning.conindid = c.conindid
WHERE conrelid = to_regclass(:table) AND contype IN ('p', 'u', 'f', 'c', 'x')
UNION ALL
SELECT c.relname, CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END
    || split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END,
    false, indisunique, them
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN leaning ON leaning.conindid = i.indexrelid
WHERE i.indrelid = to_regclass(:table)
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x'))
ORDER BY 1
"""

_NAMES = """
SELECT conrelid::regclass::text, conname, true, contype IN ('p', 'u', 'x')
FROM pg_constraint WHERE conrelid <> 0 AND connamespace = current_schema()::regnamespace AND conparentid = 0
UNION ALL
SELECT indrelid::regclass::text, relname, false, true
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE relnamespace = current_schema()::regnamespace
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x'))
ORDER BY 1, 2
"""
