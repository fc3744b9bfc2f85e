"""POST /v1/heartbeat and POST /v1/heartbeats."""

from typing import Annotated, Any

import msgspec
from nexmdm.heartbeats import record
from nexmdm.heartbeats.body import HeartbeatBody
from nexmdm.runtime import database, logs, settings, validation
from nexmdm.runtime.errors import Invalid
from nexmdm.runtime.http import Request, Routes

routes = Routes()
handler = routes.handle


class HeartbeatBatch(msgspec.Struct):
    """A queue that is drained after an outage. Its items are validated one by one, so that none loses the others."""

    heartbeats: Annotated[list[Any], msgspec.Meta(max_length=500)]


@routes("POST /v1/heartbeat")
def heartbeat(request: Request) -> dict[str, Any]:
    """Report one heartbeat.

    At most one row per device and bucket is kept, the first; a later report of the same bucket still updates the last
    status. Unknown members are ignored, -1 stands for an unknown number, and `device_id` gives way to the token's
    device.
    """
    token, body, config = request.device_token, request.json(HeartbeatBody), settings.load()
    recorded = record.for_token(database.connection(), token, [body.report(config.unity_package)], config)
    _log_mismatch(recorded.device_id, [body])
    return {
        "ok": True,
        "status": "created" if recorded.created else "duplicate",
        "next_heartbeat_seconds": config.heartbeat_interval_seconds,
        "pending_commands": recorded.pending,
    }


@routes("POST /v1/heartbeats")
def heartbeat_batch(request: Request) -> dict[str, Any]:
    """Report a queue of up to 500 heartbeats, oldest first.

    `results` are in the queue's order; an item that is rejected loses no other.
    """
    token, batch, config = request.device_token, request.json(HeartbeatBatch), settings.load()
    judged = [_body(item, n) for n, item in enumerate(batch.heartbeats)]
    bodies = [body for body in judged if isinstance(body, HeartbeatBody)]
    reports = [body.report(config.unity_package) for body in bodies]
    recorded = record.for_token(database.connection(), token, reports, config)
    _log_mismatch(recorded.device_id, bodies)
    created = iter(["created" if n in recorded.created else "duplicate" for n in range(len(reports))])
    return {
        "results": [
            {"status": "rejected", "error": item.detail} if isinstance(item, Invalid) else {"status": next(created)}
            for item in judged
        ],
        "next_heartbeat_seconds": config.heartbeat_interval_seconds,
        "pending_commands": recorded.pending,
    }


def _body(item: Any, n: int) -> HeartbeatBody | Invalid:
    try:
        return validation.convert(item, HeartbeatBody, root=f"$.heartbeats[{n}]")
    except Invalid as problem:
        return problem


def _log_mismatch(device_id: str, bodies: list[HeartbeatBody]) -> None:
    claimed = {body.device_id for body in bodies if body.device_id is not None} - {device_id}
    if claimed:
        logs.device_id_mismatch(device_id, claimed)
