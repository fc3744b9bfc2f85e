"""Run statements and migrations against a test's database."""

import os
import subprocess
import sys

import psycopg2

from tests.support.api import ROOT


def run_sql(dsn: str, *statements: str) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    try:
        for statement in statements:
            with connection.cursor() as cursor:
                cursor.execute(statement)
    finally:
        connection.close()


def alembic(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Alembic in a process of its own, as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
