"""Device reports outside heartbeats: the FCM registration token, and results of commands and installations."""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct
from nexmdm.builds import installations
from nexmdm.builds.installations import Progress
from nexmdm.commands import single
from nexmdm.commands.single import Report
from nexmdm.devices import registry
from nexmdm.devices.fields import Name, ShortText
from nexmdm.heartbeats.body import FcmToken
from nexmdm.runtime import database, settings, warmup
from nexmdm.runtime.errors import Forbidden, Invalid, Malformed, NotFound
from nexmdm.runtime.http import Request, Routes

routes = Routes()
handler = routes.handle
T = TypeVar("T")

# The request_ids of a bulk command's dispatches contain a device id, so they are longer than callers may choose.
CommandId = Annotated[str, Meta(min_length=1, max_length=128)]


# Text that is cleaned and truncated at its limit.
Output = Annotated[str, Meta(max_length=2048, extra={"clean": True})]
Error = Annotated[str, Meta(max_length=1024, extra={"clean": True})]
Message = Annotated[str, Meta(max_length=2048, extra={"clean": True})]
Explanation = Annotated[str, Meta(max_length=1000, extra={"clean": True})]
ACK_TYPES = ("PING_ACK", "RING_STARTED", "RING_STOPPED", "LAUNCH_APP_ACK", "WIFI_CONNECT_ACK")


class Ok(Struct):
    """The report was recorded."""

    ok: Literal[True] = True


class OkMessage(Struct):
    """The report was recorded, with a message."""

    message: str
    ok: Literal[True] = True


class InstallationAccepted(Struct):
    """`new_status` is the resulting status."""

    installation_id: int
    new_status: str
    status: Literal["ok"] = "ok"


class FcmTokenReport(Struct):
    """The FCM registration token is never truncated; an invalid one is rejected."""

    fcm_token: FcmToken
    device_id: Name | None = None


class Ack(Struct):
    """`type` is checked by the handler, because the agent expects 400 for a wrong type or a missing identifier."""

    type: Annotated[str, Meta(max_length=50, extra_json_schema={"enum": list(ACK_TYPES)})] | None = None
    request_id: CommandId | None = None
    correlation_id: CommandId | None = None
    status: ShortText | None = None
    message: Message | None = None


class ActionResult(Struct):
    """`outcome` is the agent's own term. `action` and `finished_at` are not read."""

    request_id: CommandId
    outcome: ShortText | None = None
    device_id: Name | None = None
    message: Explanation | None = None


class RemoteExecAck(Struct):
    """`correlation_id` identifies the command, or `exec_id` if it is missing."""

    status: Literal["OK", "FAILED", "TIMEOUT", "DENIED"]
    correlation_id: CommandId | None = None
    exec_id: CommandId | None = None
    device_id: Name | None = None
    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    output: Output | None = None
    error: Error | None = None


class InstallationUpdate(Struct):
    """`download_progress` is in percent."""

    installation_id: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    status: Literal["downloading", "installing", "completed", "failed"]
    download_progress: Annotated[int, Meta(ge=0, le=100)] | None = None
    error_message: Explanation | None = None


@routes("POST /v1/devices/fcm-token", caller="device")
def fcm_token(request: Request, body: FcmTokenReport) -> OkMessage:
    """Report the FCM registration token of the device.

    It belongs to the device that reported it last, and is removed from any other device.
    """
    request.device_id = registry.set_fcm_token(
        database.connection(), request.device_token, body.device_id, body.fcm_token
    )
    return OkMessage("FCM token updated")


@routes("POST /v1/devices/{device_id}/ack", caller="device", problems=(404,))
def ack(request: Request, body: Ack) -> Ok:
    """Acknowledge a command.

    Give request_id or correlation_id. The first answer of a device is kept; repeating it is harmless.
    """
    request_id = body.request_id or body.correlation_id
    if request_id is None:
        raise Malformed("Send request_id or correlation_id, of 1 to 128 characters.")
    if body.type not in ACK_TYPES:
        raise Malformed(f"type: it must be one of {', '.join(ACK_TYPES)}")
    report = Report(request_id, body.status or "OK", body.message or body.type)
    known = _acknowledged(request, report, request.path["device_id"])
    if request.device_id != request.path["device_id"]:
        raise Forbidden("The token belongs to another device.")
    return _found(known, Ok())


@routes("POST /v1/action-result", caller="device", problems=(404,))
def action_result(request: Request, body: ActionResult) -> OkMessage:
    """Report the result of an action."""
    known = _acknowledged(request, Report(body.request_id, body.outcome, body.message), body.device_id)
    return _found(known, OkMessage("Result recorded"))


@routes("POST /v1/remote-exec/ack", caller="device", problems=(404,))
def remote_exec_ack(request: Request, body: RemoteExecAck) -> Ok:
    """Report the result of a remote execution.

    The first 2,048 characters of output and 1,024 of error are stored.
    """
    request_id = body.correlation_id or body.exec_id
    if request_id is None:
        raise Invalid("$.correlation_id", "is missing or does not fit: it must be text of 1 to 128 characters")
    said = {"exit_code": body.exit_code, "output": body.output or "", "error": body.error or ""}
    report = Report(request_id, body.status, msgspec.json.encode(said).decode())
    return _found(_acknowledged(request, report, body.device_id), Ok())


@routes("POST /v1/apk/installation/update", caller="device", problems=(404,))
def installation_update(request: Request, body: InstallationUpdate) -> InstallationAccepted:
    """Report the progress of an installation.

    A late report never reverts a status; `new_status` is the resulting status.
    """
    progress = Progress(body.installation_id, body.status, body.download_progress, body.error_message)
    status = installations.report(database.connection(), request.device_token, progress, settings.load())
    return InstallationAccepted(body.installation_id, status)


def _acknowledged(request: Request, report: Report, claimed: str | None) -> bool:
    """Record the answer; return whether the device has such a command."""
    request.device_id, known = single.acknowledge(database.connection(), request.device_token, report, claimed)
    return known


def _found(known: bool, answer: T) -> T:
    if not known:
        raise NotFound("There is no such command for this device.")
    return answer


warmup.warm_up()
