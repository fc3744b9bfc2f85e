"""Fixtures that several folders of tests use; tests/conftest.py imports them, which makes them available everywhere."""

import uuid
from collections.abc import Iterator

import pytest
from nexmdm.runtime import secrets, settings

from local import s3
from local.fcm import FakeFcm
from tests.support import cloudformation as cloud_formation
from tests.support.databases import url_of
from tests.support.fcm import running_fake
from tests.support.postgres import run_sql
from tests.support.s3 import Bucket, bucket_of
from tests.support.sns import Topic, topic_of
from tests.support.webhook import Webhook, listening


@pytest.fixture
def fake_fcm(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFcm]:
    with running_fake(monkeypatch) as fake_fcm:
        yield fake_fcm


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    with s3.running() as url:
        yield url


@pytest.fixture
def bucket(s3_server: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """This test's own versioned bucket, which the functions use."""
    with bucket_of(s3_server, monkeypatch) as bucket:
        yield bucket


@pytest.fixture
def topic(s3_server: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Topic]:
    """This test's own topic, to which the watch publishes."""
    with topic_of(s3_server, monkeypatch) as topic:
        yield topic


@pytest.fixture
def webhook(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """A webhook that WEBHOOK_URL names."""
    with listening() as webhook:
        monkeypatch.setenv("WEBHOOK_URL", webhook.url)
        settings.load.cache_clear()
        secrets.resolve.cache_clear()
        yield webhook
        settings.load.cache_clear()


@pytest.fixture
def cloudformation(monkeypatch: pytest.MonkeyPatch) -> Iterator[cloud_formation.CloudFormation]:
    with cloud_formation.listening() as server:
        monkeypatch.setenv("RESPONSE_HOST", f"127.0.0.1:{server.server_port}")
        yield server


@pytest.fixture
def empty(server: str) -> Iterator[str]:
    """A database without tables, for tests of how the schema gets there."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name}")
    yield url_of(server, name)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def at_head(server: str, template: str) -> Iterator[str]:
    """A database at the latest revision, for tests of what follows it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(server, name)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")
