"""Steps that every suite about commands needs: enroll a device that FCM can reach, send, sweep."""

from typing import Any

from nexmdm.runtime.database import Database

from functions.fcm_dispatch.handler import handler
from tests.support.api import CONTEXT, Answer, call, enroll

ADDRESS = "fcm:lobby"


def enrolled(alias: str, address: str | None) -> tuple[str, str]:
    """Enroll a device with the FCM registration token `address`, or without one; return (device_id, device token)."""
    device_id, token = enroll(alias)
    if address is not None:
        assert call("POST", "/v1/devices/fcm-token", {"fcm_token": address}, token=token).status == 200
    return device_id, token


def send(device_id: str, request_id: str = "r-1", action: str = "ping", **body: Any) -> Answer:
    return call("POST", f"/v1/devices/{device_id}/commands", {"action": action, "request_id": request_id, **body})


def sweep() -> dict[str, int]:
    return handler({"source": "aws.scheduler"}, CONTEXT)


def make_due(db: Database) -> None:
    """Make waiting dispatches due now, by moving their times into the past."""
    db.execute("UPDATE fcm_dispatches SET next_at = now() - interval '1 second' WHERE state = 'retry_wait'")


def state(db: Database, request_id: str = "r-1") -> str:
    return db.execute("SELECT state FROM fcm_dispatches WHERE request_id = %(id)s", {"id": request_id})[0]["state"]
