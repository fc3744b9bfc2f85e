"""Queries and checks that tests of the migrations run against a database."""

import subprocess

import psycopg2
from nexmdm.runtime import settings
from nexmdm.schema import check
from psycopg2.extensions import make_dsn
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tests.support.postgres import named


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def schema_differences(url: str) -> list[str]:
    """What `make check-schema` would print, in this process."""
    with named(url):
        engine = create_engine(settings.load().sqlalchemy_url, poolclass=NullPool)
        with engine.connect() as db:
            return [*check.differences(db)]


def rows(url: str, sql: str) -> list[tuple]:
    connection = psycopg2.connect(make_dsn(url))
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()
