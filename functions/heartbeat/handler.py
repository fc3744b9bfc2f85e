"""POST /v1/heartbeat and POST /v1/heartbeats."""

from typing import Annotated, Any

import msgspec
from nexmdm import database, heartbeats, logs, settings, wire
from nexmdm.edge import Request, Routes
from nexmdm.errors import Invalid
from nexmdm.heartbeat_body import HeartbeatBody, Report

routes = Routes()
handler = routes.handle


class HeartbeatBatch(msgspec.Struct):
    """A queue that is drained after an outage. Its items are validated one by one, so that none loses the others."""

    heartbeats: Annotated[list[Any], msgspec.Meta(max_length=500)]


@routes("POST /v1/heartbeat")
def heartbeat(request: Request) -> dict[str, Any]:
    token, body, config = request.device_token, request.json(HeartbeatBody), settings.load()
    recorded = heartbeats.record(database.environment(), token, [body.report(config.unity_package)], config)
    if body.device_id not in (None, recorded.device_id):
        logs.device_id_mismatch(recorded.device_id, body.device_id)
    return {
        "ok": True,
        "status": "created" if recorded.created else "duplicate",
        "next_heartbeat_seconds": config.heartbeat_interval_seconds,
        "pending_commands": recorded.pending,
    }


@routes("POST /v1/heartbeats")
def heartbeat_batch(request: Request) -> dict[str, Any]:
    token, batch, config = request.device_token, request.json(HeartbeatBatch), settings.load()
    judged = [_report(item, n, config.unity_package) for n, item in enumerate(batch.heartbeats)]
    reports = [report for report in judged if isinstance(report, Report)]
    recorded = heartbeats.record(database.environment(), token, reports, config)
    created = iter(["created" if n in recorded.created else "duplicate" for n in range(len(reports))])
    return {
        "results": [
            {"status": next(created)} if isinstance(item, Report) else {"status": "rejected", "error": item.detail}
            for item in judged
        ],
        "next_heartbeat_seconds": config.heartbeat_interval_seconds,
        "pending_commands": recorded.pending,
    }


def _report(item: Any, n: int, unity_package: str) -> Report | Invalid:
    try:
        return wire.convert(item, HeartbeatBody, root=f"$.heartbeats[{n}]").report(unity_package)
    except Invalid as problem:
        return problem
