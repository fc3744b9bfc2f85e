import uuid
from collections.abc import Iterator

import pytest
from nexmdm.runtime import database, settings

from tests.support.databases import url_of
from tests.support.fcm import forget_service
from tests.support.postgres import run_sql
from tests.system.dispatch.stage import Stage, opened


@pytest.fixture(scope="module")
def shared_stage(server: str, template: str) -> Iterator[Stage]:
    """One database, fake FCM and relays for a module, whose tests each use their own devices."""
    name = f"dispatch_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url_of(server, name))
        settings.load.cache_clear()
        database.connection.cache_clear()
        with opened(url_of(server, name)) as stage:
            yield stage
        database.connection().close()
    settings.load.cache_clear()
    database.connection.cache_clear()
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    yield shared_stage
    shared_stage.clear()


@pytest.fixture
def here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The stage, with this process sending too."""
    for name, value in stage.environment().items():
        monkeypatch.setenv(name, value)
    settings.load.cache_clear()
    yield stage
    settings.load.cache_clear()
    forget_service()
