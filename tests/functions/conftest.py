from collections.abc import Iterator

import pytest

from local import s3
from local.fcm import Double
from tests.commands import ADDRESS, enrolled
from tests.fcm import doubled
from tests.s3 import Bucket, bucket_of


@pytest.fixture
def double(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    with doubled(monkeypatch) as double:
        yield double


@pytest.fixture
def device(double: Double) -> str:
    """The id of a device that FCM reaches at ADDRESS."""
    return enrolled("lobby", ADDRESS)[0]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    with s3.running() as url:
        yield url


@pytest.fixture
def bucket(s3_server: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A versioned bucket of this test's own, which the functions use."""
    with bucket_of(s3_server, monkeypatch) as bucket:
        yield bucket
