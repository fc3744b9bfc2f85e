"""GET /healthz: cheap, without a credential, and with the database when it is asked."""

import pytest
from nexmdm.runtime import database, settings

from local import template
from tests.support.api import call


def healthz(**query: str):
    return call("GET", "/healthz", query=query)


@pytest.fixture
def no_database(monkeypatch):
    """Nothing listens where the database should be."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    settings.load.cache_clear()
    database.connection.cache_clear()
    yield
    settings.load.cache_clear()
    database.connection.cache_clear()


def test_it_answers_without_a_database(no_database):
    answer = healthz()
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_deep_asks_the_database(url):
    answer = healthz(deep="1")
    assert (answer.status, answer.json) == (200, {"status": "ok", "database": "ok"})


def test_deep_without_a_database_is_a_503_that_says_when_to_come_back(no_database):
    answer = healthz(deep="1")
    assert answer.status == 503
    assert int({name.lower(): value for name, value in answer.headers.items()}["retry-after"]) > 0


@pytest.mark.parametrize("query", [{"deep": "2"}, {"deep": "yes"}, {"deep": ""}])
def test_another_query_is_refused(query):
    assert healthz(**query).status == 422


def test_it_has_a_limit_of_its_own():
    document = template.document()
    limits = document["Resources"]["Api"]["Properties"]["RouteSettings"]["GET /healthz"]
    assert limits == {"ThrottlingRateLimit": 5, "ThrottlingBurstLimit": 5}
