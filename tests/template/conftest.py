from collections.abc import Iterator
from typing import Any

import pytest

from local import template
from local.fcm import FakeFcm
from tests.support.fcm import running_fake


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """template.yaml, with intrinsic functions as {"Ref": ...} and {"Fn::Sub": ...}."""
    return template.document()


@pytest.fixture
def fake_fcm(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFcm]:
    with running_fake(monkeypatch) as fake_fcm:
        yield fake_fcm
