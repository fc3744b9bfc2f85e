"""What operators read, rename and delete."""

from typing import Annotated, Any

from msgspec import Meta, Struct
from nexmdm import alerts, database, devices, fleet, settings
from nexmdm.edge import Request, Response, Routes
from nexmdm.pages import Page, PageQuery

routes = Routes()
handler = routes.handle


class Rename(Struct, forbid_unknown_fields=True):
    alias: Annotated[str, Meta(min_length=1, max_length=200)]


@routes("GET /v1/devices")
def list_devices(request: Request) -> Page:
    query = request.parameters(fleet.DevicesQuery)
    return fleet.devices(database.environment(), query, settings.load().heartbeat_interval_seconds)


@routes("GET /v1/devices/{device_id}")
def show_device(request: Request) -> dict[str, Any]:
    interval = settings.load().heartbeat_interval_seconds
    return devices.show(database.environment(), request.path["device_id"], interval)


@routes("PATCH /v1/devices/{device_id}")
def rename_device(request: Request) -> dict[str, Any]:
    return devices.rename(database.environment(), request.path["device_id"], request.json(Rename).alias)


@routes("DELETE /v1/devices/{device_id}")
def delete_device(request: Request) -> Response:
    devices.delete(database.environment(), request.path["device_id"], request.operator)
    return Response(status=204)


@routes("GET /v1/devices/{device_id}/heartbeats")
def device_heartbeats(request: Request) -> Page:
    return fleet.heartbeats(database.environment(), request.path["device_id"], request.parameters(PageQuery))


@routes("GET /v1/fleet/summary")
def summary(request: Request) -> dict[str, Any]:
    return fleet.summary(database.environment(), settings.load().heartbeat_interval_seconds)


@routes("GET /v1/alerts")
def list_alerts(request: Request) -> Page:
    return alerts.list_alerts(database.environment(), request.parameters(alerts.AlertsQuery))
