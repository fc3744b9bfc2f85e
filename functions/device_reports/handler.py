"""What devices report outside of heartbeats: their FCM address, and what became of the commands they ran."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from nexmdm.builds import installations
from nexmdm.builds.installations import Progress
from nexmdm.commands import single
from nexmdm.commands.single import Report
from nexmdm.devices import registry
from nexmdm.heartbeats.body import FcmToken, Name
from nexmdm.runtime import database, settings
from nexmdm.runtime.errors import Forbidden, Malformed, NotFound
from nexmdm.runtime.http import Request, Routes

routes = Routes()
handler = routes.handle

# A server's own request_ids of bulk commands hold a device's id, so they are longer than what callers may choose.
CommandId = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=1_000_000)]  # a shell's output; what is stored is cut


ACK_TYPES = ("PING_ACK", "RING_STARTED", "RING_STOPPED", "LAUNCH_APP_ACK", "WIFI_CONNECT_ACK")


class FcmTokenReport(Struct):
    fcm_token: FcmToken
    device_id: Name | None = None


class Ack(Struct):
    """`type` is checked by hand: the agent's contract wants 400 for a wrong one."""

    type: Annotated[str, Meta(extra_json_schema={"enum": list(ACK_TYPES)})] | None = None
    request_id: CommandId | None = None
    correlation_id: CommandId | None = None
    status: Annotated[str, Meta(max_length=50)] | None = None
    message: Text | None = None


class ActionResult(Struct):
    request_id: CommandId
    action: Annotated[str, Meta(max_length=50)]
    outcome: Annotated[str, Meta(max_length=50)]
    finished_at: str
    device_id: Name | None = None
    message: Annotated[str, Meta(max_length=1000)] | None = None


class RemoteExecAck(Struct):
    exec_id: CommandId
    correlation_id: CommandId
    device_id: Name
    status: Literal["OK", "FAILED", "TIMEOUT", "DENIED"]
    exit_code: int | None = None
    output: Text | None = None
    error: Text | None = None


class InstallationUpdate(Struct):
    installation_id: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    status: Literal["downloading", "installing", "completed", "failed"]
    download_progress: int | None = None
    error_message: Text | None = None


@routes("POST /v1/devices/fcm-token")
def fcm_token(request: Request) -> dict[str, Any]:
    """Report the address that FCM gave to the device."""
    token, report = request.device_token, request.json(FcmTokenReport)
    registry.set_fcm_token(database.connection(), token, report.device_id, report.fcm_token)
    return {"ok": True, "message": "FCM token updated"}


@routes("POST /v1/devices/{device_id}/ack")
def ack(request: Request) -> dict[str, Any]:
    """Acknowledge a command.

    Give request_id or correlation_id. The first answer of a device stays; repeating it is harmless.
    """
    token, body = request.device_token, request.json(Ack)
    request_id = body.request_id or body.correlation_id
    if request_id is None:
        raise Malformed("Send request_id or correlation_id.")
    if body.type not in ACK_TYPES:
        raise Malformed(f"type: it must be one of {', '.join(ACK_TYPES)}")
    report = Report(request_id, body.status or "OK", (body.message or body.type)[:2048])
    device_id, known = single.acknowledge(database.connection(), token, report, request.path["device_id"])
    if device_id != request.path["device_id"]:
        raise Forbidden("The token is another device's.")
    return _found(known, {"ok": True})


@routes("POST /v1/action-result")
def action_result(request: Request) -> dict[str, Any]:
    """Report the result of an action."""
    token, body = request.device_token, request.json(ActionResult)
    report = Report(body.request_id, body.outcome, body.message)
    _, known = single.acknowledge(database.connection(), token, report, body.device_id)
    return _found(known, {"ok": True, "message": "Result recorded"})


@routes("POST /v1/remote-exec/ack")
def remote_exec_ack(request: Request) -> dict[str, Any]:
    """Report the result of a remote execution.

    2,048 characters of output and 1,024 of error are kept.
    """
    token, body = request.device_token, request.json(RemoteExecAck)
    said = {"exit_code": body.exit_code, "output": (body.output or "")[:2048], "error": (body.error or "")[:1024]}
    report = Report(body.correlation_id, body.status, msgspec.json.encode(said).decode())
    _, known = single.acknowledge(database.connection(), token, report, body.device_id)
    return _found(known, {"ok": True})


@routes("POST /v1/apk/installation/update")
def installation_update(request: Request) -> dict[str, Any]:
    """Report how an installation goes.

    A late report never takes a status back; `new_status` is the status as it stands.
    """
    token, body = request.device_token, request.json(InstallationUpdate)
    progress = Progress(body.installation_id, body.status, body.download_progress, body.error_message)
    status = installations.report(database.connection(), token, progress, settings.load())
    return {"status": "ok", "installation_id": body.installation_id, "new_status": status}


def _found(known: bool, answer: dict[str, Any]) -> dict[str, Any]:
    if not known:
        raise NotFound("There is no such command for this device.")
    return answer
