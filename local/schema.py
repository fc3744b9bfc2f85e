"""The schema of the local database: brought to head, with partitions for the coming days."""

import os
import subprocess
import sys
from pathlib import Path

from local.postgres import embedded

ROOT = Path(__file__).resolve().parent.parent


class SchemaError(Exception):
    """Says what went wrong and what to do."""


def prepare() -> None:
    """DATABASE_URL names a database that can be used: the one that was given, which its owner migrates, or the embedded
    one at head, which then runs until this process ends.

    Raises:
        SchemaError: it cannot.
    """
    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = embedded.url()
        migrate(os.environ["DATABASE_URL"])
    ensure_partitions()


def migrate(url: str) -> None:
    """`alembic upgrade head`, in a process of its own: neither Alembic nor the models stay in memory here."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    if done.returncode:
        raise SchemaError(f"`alembic upgrade head` failed:\n{(done.stdout + done.stderr).strip()}")


def ensure_partitions() -> None:
    """Of the database that DATABASE_URL names."""
    import psycopg2
    from nexmdm.heartbeats import partitions
    from nexmdm.runtime import database, settings
    from nexmdm.runtime.errors import Unavailable

    connection = database.Database(settings.load().dsn)
    try:
        partitions.ensure_partitions(connection, settings.load())
    except psycopg2.errors.UndefinedTable:
        raise SchemaError("the database has no schema yet; `make migrate` makes it") from None
    except Unavailable as error:
        raise SchemaError(f"the database cannot be reached: {error.__cause__ or error}") from None
    finally:
        connection.close()
