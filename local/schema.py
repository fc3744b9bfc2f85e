"""Prepares the local database: migrates it to head and creates partitions for the coming days."""

import os
import subprocess
import sys
from pathlib import Path

from local.postgres import embedded

ROOT = Path(__file__).resolve().parent.parent


class SchemaError(Exception):
    """The database cannot be used; the text says why and what to do."""


def prepare() -> None:
    """Set DATABASE_URL to a usable database: the given one, which its owner migrates, or the embedded one at head,
    which runs until this process ends.

    Raises:
        SchemaError: it cannot.
    """
    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = embedded.url()
        migrate(os.environ["DATABASE_URL"])
    ensure_partitions()


def migrate(url: str) -> None:
    """Run `alembic upgrade head` in a separate process, so that Alembic and the models do not stay in memory."""
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
    """Check the schema of the database at DATABASE_URL."""
    import psycopg2
    from nexmdm.heartbeats import partitions
    from nexmdm.runtime import database, settings
    from nexmdm.runtime.errors import Unavailable

    connection = database.Database(settings.load().dsn)
    try:
        partitions.ensure_partitions(connection, settings.load())
    except psycopg2.errors.UndefinedTable:
        raise SchemaError("the database has no schema yet; run `make migrate`") from None
    except Unavailable as error:
        raise SchemaError(f"the database cannot be reached: {error.__cause__ or error}") from None
    finally:
        connection.close()
