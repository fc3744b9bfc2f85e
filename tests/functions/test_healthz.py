"""GET /healthz: cheap, without credentials, and with a database check on request."""

import pytest
from nexmdm.runtime import database, settings

from local import template
from tests.support.api import call


def healthz(**query: str):
    return call("GET", "/healthz", query=query)


@pytest.fixture
def no_database(monkeypatch):
    """No server listens at the database's URL."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    settings.load.cache_clear()
    database.connection.cache_clear()
    yield
    settings.load.cache_clear()
    database.connection.cache_clear()


def test_healthz_works_without_a_database(no_database):
    answer = healthz()
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_deep_healthz_queries_the_database(url):
    answer = healthz(deep="1")
    assert (answer.status, answer.json) == (200, {"status": "ok", "database": "ok"})


def test_deep_healthz_without_a_database_returns_503_with_retry_after(no_database):
    answer = healthz(deep="1")
    assert answer.status == 503
    assert int({name.lower(): value for name, value in answer.headers.items()}["retry-after"]) > 0


@pytest.mark.parametrize("query", [{"deep": "2"}, {"deep": "yes"}, {"deep": ""}])
def test_unknown_healthz_query_is_refused(query):
    assert healthz(**query).status == 422


def test_healthz_has_its_own_rate_limit():
    document = template.document()
    limits = document["Resources"]["Api"]["Properties"]["RouteSettings"]["GET /healthz"]
    assert limits == {"ThrottlingRateLimit": 5, "ThrottlingBurstLimit": 5}
