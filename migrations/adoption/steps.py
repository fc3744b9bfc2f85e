"""One step of an adoption, and the table that keeps what our tables have no column for."""

from typing import NamedTuple

ARCHIVE = "old_server_values"
CREATE_ARCHIVE = f"""
CREATE TABLE {ARCHIVE} (table_name text NOT NULL, row_key text NOT NULL, old jsonb NOT NULL,
    CONSTRAINT pk_{ARCHIVE} PRIMARY KEY (table_name, row_key))
"""


class Step(NamedTuple):
    """what: for people, in the present tense. counted: SQL for the number of rows it touches, asked before any step."""

    what: str
    sql: str | None
    counted: str | None = None


def keep(table: str, key: str, value: str, source: str) -> str:
    """An INSERT that keeps `value` (a jsonb expression) for the rows of `source`; what was kept before stays."""
    return f"""
INSERT INTO {ARCHIVE} AS kept SELECT '{table}', ({key})::text, {value} FROM {source}
ON CONFLICT (table_name, row_key) DO UPDATE SET old = kept.old || excluded.old
"""
