from collections.abc import Iterator

import pytest
from nexmdm.runtime.database import Database

from tests.support.fcm import running_fake
from tests.system.model.machine import Machine


@pytest.fixture
def machine(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with running_fake(monkeypatch) as fake_fcm:
        yield Machine(db, fake_fcm)
