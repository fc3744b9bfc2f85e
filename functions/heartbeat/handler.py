"""POST /v1/heartbeat and POST /v1/heartbeats."""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw
from nexmdm.heartbeats import body as reported
from nexmdm.heartbeats import record
from nexmdm.heartbeats.body import HeartbeatBody, Report
from nexmdm.heartbeats.record import BatchRecorded, HeartbeatRecorded, HeartbeatResult
from nexmdm.runtime import database, lenient, logs, settings, warmup
from nexmdm.runtime.errors import Invalid
from nexmdm.runtime.http import Request, Routes

routes = Routes()
handler = routes.handle

MOST_HEARTBEATS = 500


class HeartbeatBatch(msgspec.Struct):
    """A queue that is drained after an outage. Its items are parsed separately, so that an invalid one affects no
    other."""

    heartbeats: Annotated[
        Raw,
        Meta(
            extra_json_schema={
                "type": "array",
                "maxItems": MOST_HEARTBEATS,
                "items": {"$ref": "#/components/schemas/HeartbeatBody"},
            }
        ),
    ]


@routes("POST /v1/heartbeat", caller="device")
def heartbeat(request: Request, body: HeartbeatBody) -> HeartbeatRecorded:
    """Report one heartbeat.

    At most one row per device and bucket is stored, the first; a later report in the same bucket still updates the last
    status. Unknown members are ignored, an invalid value is treated as null, -1 means an unknown number, and the
    token's device takes precedence over `device_id`.
    """
    config = settings.load()
    report = reported.report(body, config.unity_package, request.dropped)
    recorded = record.for_token(database.connection(), request.device_token, [report], config)
    _log(request, recorded.device_id, [report])
    return HeartbeatRecorded(
        status="created" if recorded.created else "duplicate",
        next_heartbeat_seconds=config.heartbeat_interval_seconds,
        pending_commands=recorded.pending,
    )


@routes("POST /v1/heartbeats", caller="device")
def heartbeat_batch(request: Request, body: HeartbeatBatch) -> BatchRecorded:
    """Report a queue of up to 500 heartbeats, oldest first.

    `results` are in the queue's order; an item that is rejected because it is not an object does not affect the others.
    """
    config = settings.load()
    read = [_read(item, n, request) for n, item in enumerate(lenient.items(body.heartbeats, MOST_HEARTBEATS, LIST))]
    reports = [report for report in read if isinstance(report, Report)]
    recorded = record.for_token(database.connection(), request.device_token, reports, config)
    _log(request, recorded.device_id, reports)
    positions = iter(range(len(reports)))
    return BatchRecorded(
        results=[
            HeartbeatResult("rejected", report.detail)
            if isinstance(report, Invalid)
            else HeartbeatResult("created" if next(positions) in recorded.created else "duplicate")
            for report in read
        ],
        next_heartbeat_seconds=config.heartbeat_interval_seconds,
        pending_commands=recorded.pending,
    )


LIST = "$.heartbeats"


def _read(item: Raw, n: int, request: Request) -> Report | Invalid:
    try:
        body, dropped = lenient.item(item, HeartbeatBody, f"{LIST}[{n}]")
    except Invalid as problem:
        return problem
    report = reported.report(body, settings.load().unity_package, dropped)
    request.dropped += dropped
    return report


def _log(request: Request, device_id: str, reports: list[Report]) -> None:
    request.device_id = device_id
    if claimed := {report.claimed for report in reports if report.claimed is not None} - {device_id}:
        logs.device_id_mismatch(device_id, claimed)


warmup.warm_up()
