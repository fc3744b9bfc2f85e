"""Simulates the passage of time by making every timestamp in a database older."""

from contextlib import closing

import psycopg2
from psycopg2 import sql

_COLUMNS = """
SELECT table_name, array_agg(column_name::text) FROM information_schema.columns
JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND data_type = 'timestamp with time zone'
    AND is_generated = 'NEVER'
    AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = format('public.%I', table_name)::regclass)
GROUP BY table_name
"""
AWAY = "100 years"  # avoids temporary conflicts where a timestamp is part of a key


def pass_time(database_url: str, seconds: float) -> None:
    """Make everything in the database older by this many seconds. Needs a superuser, because triggers are disabled.

    Raises:
        psycopg2.Error: the database cannot be reached, or rejects it.
    """
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(_COLUMNS)
        for table, columns in cursor.fetchall():
            for change in (f"- interval '{AWAY}'", f"+ interval '{AWAY}' - make_interval(secs => {float(seconds)})"):
                assignments = [
                    sql.SQL("{column} = {column} {change}").format(column=sql.Identifier(name), change=sql.SQL(change))
                    for name in columns
                ]
                update = sql.SQL("UPDATE {} SET {}")
                cursor.execute(update.format(sql.Identifier(table), sql.SQL(", ").join(assignments)))
