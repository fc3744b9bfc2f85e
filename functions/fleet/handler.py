"""What operators read, rename and delete."""

from typing import Annotated, Any

from msgspec import Meta, Struct
from nexmdm.activity import events
from nexmdm.alerts import history
from nexmdm.devices import lists, registry
from nexmdm.runtime import database, settings
from nexmdm.runtime.http import Request, Response, Routes
from nexmdm.runtime.pagination import Page, PageQuery

routes = Routes()
handler = routes.handle


class Rename(Struct, forbid_unknown_fields=True):
    alias: Annotated[str, Meta(min_length=1, max_length=200)]


@routes("GET /v1/devices")
def list_devices(request: Request) -> Page:
    """List living devices by alias, each with its last status.

    `alias` is a prefix. `online` is whether the server heard from it within three intervals.
    """
    query = request.parameters(lists.DevicesQuery)
    return lists.devices(database.connection(), query, settings.load().heartbeat_interval_seconds)


@routes("GET /v1/devices/{device_id}")
def show_device(request: Request) -> dict[str, Any]:
    """Show a device with its last status."""
    interval = settings.load().heartbeat_interval_seconds
    return registry.show(database.connection(), request.path["device_id"], interval)


@routes("PATCH /v1/devices/{device_id}")
def rename_device(request: Request) -> dict[str, Any]:
    """Give a device another alias."""
    return registry.rename(database.connection(), request.path["device_id"], request.json(Rename).alias)


@routes("DELETE /v1/devices/{device_id}")
def delete_device(request: Request) -> Response:
    """Delete a device: its token answers 410 from now on, its alias is free again."""
    registry.delete(database.connection(), request.path["device_id"], request.operator)
    return Response(status=204)


@routes("GET /v1/devices/{device_id}/heartbeats")
def device_heartbeats(request: Request) -> Page:
    """List a device's heartbeats, newest first."""
    return lists.heartbeats(database.connection(), request.path["device_id"], request.parameters(PageQuery))


@routes("GET /v1/fleet/summary")
def summary(request: Request) -> dict[str, Any]:
    """Count the fleet: online, silent, low battery, Unity down, by status and agent version."""
    return lists.summary(database.connection(), settings.load().heartbeat_interval_seconds)


@routes("GET /v1/fleet/history")
def fleet_history(request: Request, query: history.HistoryQuery) -> history.History:
    """Show the fleet over time, by hour or by day: devices, online, silent, open alerts; of a group with `group`."""
    return history.show(database.connection(), query)


@routes("GET /v1/events")
def list_events(request: Request, query: events.EventsQuery) -> Page[events.Event]:
    """List what operators and the system itself changed, newest first.

    `actor`, `action` and `object` are compared whole, or as a beginning when they end in `*`.
    """
    return events.list_events(database.connection(), query)
