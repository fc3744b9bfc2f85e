"""What operators read and change of their fleet: devices, their labels, groups of them; alerts and events."""

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
    """List living devices by alias, each with its last status.

    `alias` is a prefix, `selector` a label selector. `online` is whether the server heard from the device within three
    heartbeat intervals.
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
    """Give a device another alias, other labels or another app to watch.

    A merge patch (RFC 7396): what is left out stays, and `{"labels": {"site": null}}` removes a label.
    """
    return editing.update(database.connection(), request.path["device_id"], body, request.actor)


@routes("DELETE /v1/devices/{device_id}", status=204)
def delete_device(request: Request) -> None:
    """Delete a device: its token answers 410 from now on, its alias is free again."""
    deletion.delete(database.connection(), request.path["device_id"], request.actor)


@routes("POST /v1/devices/preview")
def preview_devices(request: Request, body: Targets) -> Preview:
    """Show which devices a filter selects now: how many, ten of them, and the hash to expect when acting on them."""
    return targets.preview(database.connection(), body, settings.load().heartbeat_interval_seconds)


@routes("POST /v1/devices/labels", problems=(409,))
def label_devices(request: Request, body: LabelChange) -> LabelsChanged:
    """Set and remove labels on many devices; on all of them or on none."""
    interval = settings.load().heartbeat_interval_seconds
    return labelling.change(database.connection(), body, interval, request.actor)


@routes("POST /v1/devices/delete", problems=(409,))
def delete_devices(request: Request, body: ExpectedTargets) -> Deleted:
    """Delete many devices. With a filter `expect_target_hash` is required: look at the preview first."""
    interval = settings.load().heartbeat_interval_seconds
    return deletion.delete_many(database.connection(), body, interval, request.actor)


@routes("POST /v1/devices/import", problems=(409,))
def import_devices(request: Request, body: Import) -> Imported:
    """Set aliases and labels of many devices, all or nothing; `dry_run` only checks."""
    return imports.run(database.connection(), body, request.actor)


@routes("GET /v1/devices/{device_id}/apps")
def list_apps_of_device(request: Request, query: PageQuery) -> Page[DeviceApp]:
    """List the apps that a device reported, by package."""
    return apps.of_device(database.connection(), request.path["device_id"], query)


@routes("GET /v1/apps")
def list_apps(request: Request, query: AppsQuery) -> Page[FleetApp]:
    """List what is installed on the devices that fit the filter.

    Each package with its versions, and on how many devices each is.
    """
    return apps.of_fleet(database.connection(), query, settings.load().heartbeat_interval_seconds)


@routes("GET /v1/labels")
def list_labels(request: Request) -> LabelsInUse:
    """List the labels that devices have: each key with its values, the most frequent first."""
    return labelling.in_use(database.connection())


@routes("GET /v1/groups")
def list_groups(request: Request, query: PageQuery) -> Page[Group]:
    """List groups by name, each with the number of devices that fit its filter now."""
    return groups.list_groups(database.connection(), query, settings.load().heartbeat_interval_seconds)


@routes("GET /v1/groups/{name}")
def show_group(request: Request) -> Group:
    """Show a group with the number of devices that fit its filter now."""
    interval = settings.load().heartbeat_interval_seconds
    return groups.show(database.connection(), request.path["name"], interval)


@routes("PUT /v1/groups/{name}")
def put_group(request: Request, body: GroupBody) -> Group:
    """Make a group, or replace what it is. A group is a name for a filter, and its filter names no other group.

    With `monitored_package` that app is watched on its devices, but for those with an app of their own.
    """
    name = validation.convert(request.path["name"], validation.GivenName, root="path.name")
    interval = settings.load().heartbeat_interval_seconds
    return groups.put(database.connection(), name, body, interval, request.actor)


@routes("DELETE /v1/groups/{name}", status=204, problems=(409,))
def delete_group(request: Request) -> None:
    """Delete a group. While something uses it the answer is 409 with `used_by`."""
    groups.delete(database.connection(), request.path["name"], request.actor)


@routes("GET /v1/devices/{device_id}/heartbeats")
def device_heartbeats(request: Request, query: PageQuery) -> Page[Heartbeat]:
    """List a device's heartbeats, newest first."""
    return lists.heartbeats(database.connection(), request.path["device_id"], query)


@routes("GET /v1/devices/{device_id}/history")
def device_history(request: Request, query: HistoryQuery) -> DeviceHistory:
    """Show what a device reported over time, by hour or by day, for 90 days: battery, temperature, signal, memory.

    Each with its least, greatest and last value of that time, and the number of reports.
    """
    return history.show(database.connection(), request.path["device_id"], query)


@routes("GET /v1/fleet/summary")
def summary(request: Request, query: FilterQuery) -> FleetSummary:
    """Count the fleet, or the devices that fit a filter: online, silent, low battery, app down, by status and agent
    version."""
    return lists.summary(database.connection(), query, settings.load().heartbeat_interval_seconds)


@routes("GET /v1/fleet/history")
def fleet_history(request: Request, query: FleetHistoryQuery) -> History:
    """Show the fleet over time, by hour or by day: devices, online, silent, open alerts; of a group with `group`."""
    return fleet_histories.show(database.connection(), query)


@routes("GET /v1/events")
def list_events(request: Request, query: events.EventsQuery) -> Page[events.Event]:
    """List what operators and the system itself changed, newest first.

    `actor`, `action` and `object` are compared whole, or as a beginning when they end in `*`.
    """
    return events.list_events(database.connection(), query)


warmup.warm_up()
