"""Databases that start empty, since these tests are about how they get their schema."""

import uuid
from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from tests.conftest import run_sql, url_of


@pytest.fixture
def empty(server: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name}")
    yield url_of(server, name)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def rows(url: str, sql: str) -> list[tuple]:
    connection = psycopg2.connect(make_dsn(url))
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()
