"""Firebase Cloud Messaging for a test: a fake on a socket, and the settings that point to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from nexmdm.runtime import settings

from functions.fcm_dispatch import fcm
from local.fcm import FakeFcm, running
from local.fcm.account import service_account

HMAC_KEY = "the key that devices hold"


@contextmanager
def running_fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFcm]:
    """A fake that FCM_ENDPOINT and FCM_SERVICE_ACCOUNT name, with timeouts short enough to test a silent server."""
    fake_fcm = FakeFcm()
    with running(fake_fcm) as url:
        environment = {
            "FCM_ENDPOINT": url,
            "FCM_SERVICE_ACCOUNT": service_account(url),
            "FCM_TIMEOUT_SECONDS": "1",
            "COMMAND_HMAC_KEY": HMAC_KEY,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings.load.cache_clear()
        forget_service()  # the previous test may have used another fake
        try:
            yield fake_fcm
        finally:
            forget_service()


def forget_service() -> None:
    """Forget the FCM service, as a new Lambda environment would."""
    fcm.service.cache_clear()
