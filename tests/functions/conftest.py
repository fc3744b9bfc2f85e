import pytest

from local.fcm import FakeFcm
from tests.support.commands import ADDRESS, enrolled


@pytest.fixture
def device(fake_fcm: FakeFcm) -> str:
    """The id of a device that FCM reaches with the registration token ADDRESS."""
    return enrolled("lobby", ADDRESS)[0]
