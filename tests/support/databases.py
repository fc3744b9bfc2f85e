"""Give each test a database: a fresh copy of the template, or the previous one if only its rows have changed.

A copy takes a third of a second, and most tests change only rows. A database is therefore used again if its catalog
is, version by version, that of the copy: its rows are deleted, those of the migrations are restored, and its
sequences restart.
"""

import time
import uuid
from contextlib import closing

import psycopg2
from psycopg2.extensions import connection, cursor

FORGET_ABOVE = 5_000  # rows; beyond that, dead rows and statistics would slow down or mislead later tests

_CATALOG = """
SELECT md5(string_agg(entry, ',' ORDER BY entry)) FROM (
    SELECT 'class' || oid || ':' || xmin FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'proc' || oid || ':' || xmin FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'index' || indexrelid || ':' || xmin FROM pg_index
    UNION ALL SELECT 'default' || oid || ':' || xmin FROM pg_attrdef
    UNION ALL SELECT 'column' || attrelid || '.' || attnum || ':' || xmin FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT 'version' || version_num FROM alembic_version
    UNION ALL SELECT 'constraint' || oid || ':' || xmin FROM pg_constraint
    UNION ALL SELECT 'trigger' || oid || ':' || xmin FROM pg_trigger
    UNION ALL SELECT 'namespace' || oid || ':' || xmin FROM pg_namespace WHERE nspname NOT LIKE 'pg_%'
    UNION ALL SELECT 'setting' || setdatabase || setrole || setconfig::text FROM pg_db_role_setting
) AS entries(entry)
"""
_TABLES = """
SELECT oid::regclass::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
  AND relname <> 'alembic_version'
"""
_SEQUENCES = "SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s"


def url_of(server: str, name: str) -> str:
    """The URL of the database `name` on the same server."""
    before, _, query = server.partition("?")
    return f"{before.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


class Databases:
    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = server, template
        self._spare: tuple[str, str] | None = None
        self._made_by_migrations: dict[str, str] = {}
        # The connection that cleaned a database last. Cleaning it again takes a third of the time with it.
        self._cleaner: connection | None = None
        self._cleans = ""

    def take(self) -> tuple[str, str]:
        """Return the name of a clean database and the fingerprint of its catalog."""
        if self._spare:
            taken, self._spare = self._spare, None
            return taken
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY FILE_COPY")
        self._made_by_migrations = self._made_by_migrations or self._rows(name)
        return name, self._fingerprint(name)

    def give_back(self, name: str, fingerprint: str) -> None:
        try:
            kept = self._clean(name, fingerprint)
        except psycopg2.Error:  # the test ended the kept connection, or the database does not accept one
            self._forget_cleaner()
            try:
                kept = self._clean(name, fingerprint)
            except psycopg2.Error:
                kept = False
        if kept and self._spare is None:
            self._spare = name, fingerprint
        else:
            self._drop(name)

    def close(self) -> None:
        if self._spare:
            self._drop(self._spare[0])

    def _clean(self, name: str, fingerprint: str) -> bool:
        """Remove what the test left; False if its database is not worth keeping."""
        if self._cleaner is None or self._cleans != name:
            self._forget_cleaner()
            self._cleaner, self._cleans = psycopg2.connect(url_of(self._server, name)), name
            self._cleaner.autocommit = True
        with self._cleaner.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")  # without foreign keys, in any order
            _end_the_others(cursor, name)
            cursor.execute(_CATALOG)
            if cursor.fetchone() != (fingerprint,):
                return False
            cursor.execute(_TABLES)
            rows = 0
            for (table,) in cursor.fetchall():
                cursor.execute(f"DELETE FROM {table}")
                rows += cursor.rowcount
            for table, made in self._made_by_migrations.items():
                cursor.execute(f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, %s)", [made])
            cursor.execute(_SEQUENCES)
            return rows <= FORGET_ABOVE

    def _forget_cleaner(self) -> None:
        if self._cleaner is not None:
            self._cleaner.close()
            self._cleaner = None

    def _rows(self, name: str) -> dict[str, str]:
        """The rows of a fresh copy, as {table: JSON}."""
        found = {}
        with closing(psycopg2.connect(url_of(self._server, name))) as connection, connection.cursor() as cursor:
            cursor.execute(_TABLES)
            for (table,) in cursor.fetchall():
                cursor.execute(f"SELECT jsonb_agg(t)::text FROM {table} t")
                ((made,),) = cursor.fetchall()
                if made is not None:
                    found[table] = made
        return found

    def _fingerprint(self, name: str) -> str:
        with closing(psycopg2.connect(url_of(self._server, name))) as connection, connection.cursor() as cursor:
            cursor.execute(_CATALOG)
            ((fingerprint,),) = cursor.fetchall()
            return fingerprint

    def _drop(self, name: str) -> None:
        self._forget_cleaner()
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with closing(psycopg2.connect(self._server)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(statement)


def _end_the_others(cursor: cursor, name: str) -> None:
    deadline = time.monotonic() + 5
    while True:
        cursor.execute(_OTHERS, [name])
        if not cursor.rowcount or time.monotonic() > deadline:
            return
        time.sleep(0.001)  # pg_terminate_backend itself would look again only after 100 ms
