"""What devices report outside of heartbeats."""

from typing import Any

from msgspec import Struct
from nexmdm import database, devices
from nexmdm.edge import Request, Routes
from nexmdm.heartbeat_body import FcmToken, Name

routes = Routes()
handler = routes.handle


class FcmTokenReport(Struct):
    fcm_token: FcmToken
    device_id: Name | None = None


@routes("POST /v1/devices/fcm-token")
def fcm_token(request: Request) -> dict[str, Any]:
    token, report = request.device_token, request.json(FcmTokenReport)
    devices.set_fcm_token(database.environment(), token, report.device_id, report.fcm_token)
    return {"ok": True, "message": "FCM token updated"}
