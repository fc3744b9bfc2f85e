"""Firebase Cloud Messaging for a test: the double on a socket, and the settings that point at it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from nexmdm.runtime import settings

from functions.fcm_dispatch import fcm
from local.fcm import FakeFcm, running
from local.fcm.account import service_account

HMAC_KEY = "the key that devices hold"


@contextmanager
def doubled(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFcm]:
    """A double that FCM_ENDPOINT and FCM_SERVICE_ACCOUNT name, with timeouts short enough for silence."""
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
        forget_service()  # whoever used it last may have had another double
        try:
            yield fake_fcm
        finally:
            forget_service()


def forget_service() -> None:
    """As a new environment begins."""
    fcm.service.cache_clear()
