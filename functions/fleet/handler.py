"""Operator routes for the fleet: devices, labels, groups, apps, history and events."""

from nexmdm.activity import events
from nexmdm.alerts import history as fleet_histories
from nexmdm.alerts.history import FleetHistoryQuery, History
from nexmdm.devices import apps, deletion, editing, groups, imports, labelling, lists, targets
from nexmdm.devices.apps import AppsQuery, DeviceApp, FleetApp
from nexmdm.devices.deletion import Deleted
from nexmdm.devices.editing import DevicePatch, DeviceSettings
from nexmdm.devices.filters import FilterQuery
from nexmdm.devices.groups import Group, GroupBody
from nexmdm.devices.imports import Import, Imported
from nexmdm.devices.labelling import LabelChange, LabelsChanged, LabelsInUse
from nexmdm.devices.lists import Device, DevicesQuery, FleetSummary, Heartbeat
from nexmdm.devices.targets import ExpectedTargets, Preview, Targets
from nexmdm.heartbeats import history
from nexmdm.heartbeats.history import DeviceHistory, HistoryQuery
from nexmdm.runtime import database, settings, validation, warmup
from nexmdm.runtime.http import Request, Routes
from nexmdm.runtime.pagination import Page, PageQuery

routes = Routes()
handler = routes.handle


@routes("GET /v1/devices")
def list_devices(request: Request, query: DevicesQuery) -> Page[Device]:
    """List enrolled devices, sorted by alias, each with its last status.

    `alias` is a prefix, `selector` a label selector. `online` says whether the server has heard from the device within
    three heartbeat intervals.
    """
    config = settings.load()
    return lists.devices(database.connection(), query, config.heartbeat_interval_seconds, config.unity_package)


@routes("GET /v1/devices/{device_id}")
def show_device(request: Request) -> Device:
    """Show a device with its last status."""
    config = settings.load()
    device_id = request.path["device_id"]
    return lists.show(database.connection(), device_id, config.heartbeat_interval_seconds, config.unity_package)


@routes("PATCH /v1/devices/{device_id}", problems=(409,))
def update_device(request: Request, body: DevicePatch) -> DeviceSettings:
    """Change a device's alias, labels or monitored app.

    The body is a merge patch (RFC 7396): absent members stay unchanged, and `{"labels": {"site": null}}` removes a
    label.
    """
    return editing.update(database.connection(), request.path["device_id"], body, request.actor)


@routes("DELETE /v1/devices/{device_id}", status=204)
def delete_device(request: Request) -> None:
    """Delete a device: from now on its token gets 410, and its alias is free."""
    deletion.delete(database.connection(), request.path["device_id"], request.actor)


@routes("POST /v1/devices/preview")
def preview_devices(request: Request, body: Targets) -> Preview:
    """Preview the devices of a filter: their number, ten aliases, and the hash to pass as `expect_target_hash`."""
    return targets.preview(database.connection(), body, settings.load().heartbeat_interval_seconds)


@routes("POST /v1/devices/labels", problems=(409,))
def label_devices(request: Request, body: LabelChange) -> LabelsChanged:
    """Set and remove labels on many devices, all or nothing."""
    interval = settings.load().heartbeat_interval_seconds
    return labelling.change(database.connection(), body, interval, request.actor)


@routes("POST /v1/devices/delete", problems=(409,))
def delete_devices(request: Request, body: ExpectedTargets) -> Deleted:
    """Delete many devices. With a filter, `expect_target_hash` from a preview is required."""
    interval = settings.load().heartbeat_interval_seconds
    return deletion.delete_many(database.connection(), body, interval, request.actor)


@routes("POST /v1/devices/import", problems=(409,))
def import_devices(request: Request, body: Import) -> Imported:
    """Set aliases and labels of many devices, all or nothing; `dry_run` only checks."""
    return imports.run(database.connection(), body, request.actor)


@routes("GET /v1/devices/{device_id}/apps")
def list_apps_of_device(request: Request, query: PageQuery) -> Page[DeviceApp]:
    """List the apps that a device has reported, sorted by package."""
    return apps.of_device(database.connection(), request.path["device_id"], query)


@routes("GET /v1/apps")
def list_apps(request: Request, query: AppsQuery) -> Page[FleetApp]:
    """List the apps that are installed on the devices that match the filter.

    Each package is listed with its versions and the number of devices with each.
    """
    return apps.of_fleet(database.connection(), query, settings.load().heartbeat_interval_seconds)


@routes("GET /v1/labels")
def list_labels(request: Request) -> LabelsInUse:
    """List the labels in use: each key with its values, most frequent first."""
    return labelling.in_use(database.connection())


@routes("GET /v1/groups")
def list_groups(request: Request, query: PageQuery) -> Page[Group]:
    """List groups, sorted by name, each with the number of devices that match its filter now."""
    return groups.list_groups(database.connection(), query, settings.load().heartbeat_interval_seconds)


@routes("GET /v1/groups/{name}")
def show_group(request: Request) -> Group:
    """Show a group with the number of devices that match its filter now."""
    interval = settings.load().heartbeat_interval_seconds
    return groups.show(database.connection(), request.path["name"], interval)


@routes("PUT /v1/groups/{name}")
def put_group(request: Request, body: GroupBody) -> Group:
    """Create a group or replace its definition. A group is a named filter, which cannot name another group.

    `monitored_package` is the app to monitor on its devices, except on devices that set their own.
    """
    name = validation.convert(request.path["name"], validation.GivenName, root="path.name")
    interval = settings.load().heartbeat_interval_seconds
    return groups.put(database.connection(), name, body, interval, request.actor)


@routes("DELETE /v1/groups/{name}", status=204, problems=(409,))
def delete_group(request: Request) -> None:
    """Delete a group. If it is in use, the response is 409 with `used_by`."""
    groups.delete(database.connection(), request.path["name"], request.actor)


@routes("GET /v1/devices/{device_id}/heartbeats")
def device_heartbeats(request: Request, query: PageQuery) -> Page[Heartbeat]:
    """List a device's heartbeats, newest first."""
    return lists.heartbeats(database.connection(), request.path["device_id"], query)


@routes("GET /v1/devices/{device_id}/history")
def device_history(request: Request, query: HistoryQuery) -> DeviceHistory:
    """Show a device's battery, temperature, signal and memory over time, by hour or by day, for up to 90 days.

    Each point has the number of reports, and the minimum, maximum and last value of each field.
    """
    return history.show(database.connection(), request.path["device_id"], query)


@routes("GET /v1/fleet/summary")
def summary(request: Request, query: FilterQuery) -> FleetSummary:
    """Count the devices of the fleet or of a filter: online, silent, low battery, app down, by status and agent
    version."""
    return lists.summary(database.connection(), query, settings.load().heartbeat_interval_seconds)


@routes("GET /v1/fleet/history")
def fleet_history(request: Request, query: FleetHistoryQuery) -> History:
    """Show the fleet over time, by hour or by day: devices, online, silent, open alerts; with `group`, of a group."""
    return fleet_histories.show(database.connection(), query)


@routes("GET /v1/events")
def list_events(request: Request, query: events.EventsQuery) -> Page[events.Event]:
    """List changes by operators and the system, newest first.

    `actor`, `action` and `object` match exactly, or as a prefix if they end in `*`.
    """
    return events.list_events(database.connection(), query)


warmup.warm_up()
