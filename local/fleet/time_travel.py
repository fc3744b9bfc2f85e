"""Time that passes in a moment: every instant that a database holds becomes older."""

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
AWAY = "100 years"  # so that no row meets another on the way, where an instant is part of a key


def pass_time(database_url: str, seconds: float) -> None:
    """Let so much time pass for everything that the database remembers. Needs a superuser: triggers stay silent.

    Raises:
        psycopg2.Error: the database cannot be reached, or refuses it.
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
