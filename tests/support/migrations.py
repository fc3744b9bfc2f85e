"""Queries and checks that tests of the migrations run against a database."""

import os
import subprocess
import sys

import psycopg2
from psycopg2.extensions import make_dsn


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_schema(url: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "nexmdm.schema"], env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True
    ).stdout


def rows(url: str, sql: str) -> list[tuple]:
    connection = psycopg2.connect(make_dsn(url))
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()
