from collections.abc import Iterator

import pytest

from local.fcm import Double
from tests.commands import ADDRESS, enrolled
from tests.fcm import doubled


@pytest.fixture
def double(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    with doubled(monkeypatch) as double:
        yield double


@pytest.fixture
def device(double: Double) -> str:
    """The id of a device that FCM reaches at ADDRESS."""
    return enrolled("lobby", ADDRESS)[0]
