from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from local.fcm import Double
from local.template import TEMPLATE, _CloudFormationLoader
from tests.fcm import doubled


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """template.yaml, intrinsics as {"Ref": ..}, {"Fn::Sub": ..}."""
    return yaml.load(TEMPLATE.read_text(), Loader=_CloudFormationLoader)


@pytest.fixture
def double(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    with doubled(monkeypatch) as double:
        yield double
