"""Databases that start empty, because these tests are about how the schema gets there."""

import uuid
from collections.abc import Iterator

import pytest

from tests.support.databases import url_of
from tests.support.postgres import run_sql


@pytest.fixture
def empty(server: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name}")
    yield url_of(server, name)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")
