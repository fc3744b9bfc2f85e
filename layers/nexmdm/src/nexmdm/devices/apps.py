"""The app inventory of one device, and of the fleet by package and version."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from nexmdm.devices import filters
from nexmdm.devices.filters import FilteredPageQuery, PackageName
from nexmdm.runtime.database import Executor, statement, typed
from nexmdm.runtime.errors import UnknownDevice
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.validation import Instant

Count = Annotated[int, Meta(ge=0)]


class DeviceApp(Struct, kw_only=True):
    """An app of a device according to its newest inventory.

    Attributes:
        removed_at: when an inventory without it arrived; null while it is installed, and for an app that the device has
        always reported as not installed.
    """

    package: str
    version_name: str | None
    version_code: int | None
    installed: bool
    first_seen_at: Instant
    removed_at: Instant | None


class AppVersion(Struct, kw_only=True):
    """How many devices have one version of an app."""

    version_name: str | None
    version_code: int | None
    device_count: Count


class FleetApp(Struct, kw_only=True):
    """An app that is installed on enrolled devices, with at most 50 `versions`, highest code first."""

    package: str
    device_count: Count
    versions: list[AppVersion]


class AppsQuery(FilteredPageQuery, kw_only=True):
    """Filters of the list of apps, in addition to those of devices."""

    package: PackageName | None = None


def of_device(db: Executor, device_id: str, query: PageQuery) -> Page[DeviceApp]:
    """A page of a device's apps, sorted by package.

    Raises:
        UnknownDevice: there is no such device, or it was deleted.
    """
    (after,) = query.after(str)
    parameters = {"device_id": device_id, "after": after, "limit": query.limit + 1}
    rows = db.execute(_OF_DEVICE, parameters, repeatable=True)
    if not rows and not db.execute(_EXISTS, {"device_id": device_id}, repeatable=True):
        raise UnknownDevice(f"There is no device {device_id!r}.")
    return page(typed(rows, DeviceApp), query.limit, ("package",))


def of_fleet(db: Executor, query: AppsQuery, interval_seconds: int) -> Page[FleetApp]:
    """A page of the apps on enrolled devices that match the filter, sorted by package.

    Raises:
        Invalid: the selector is invalid, or there is no such group.
    """
    (after,) = query.after(str)
    condition = filters.where(filters.resolve(db, filters.of_query(query), "query"), interval_seconds)
    parameters = {**condition.parameters, "after": after, "package": query.package, "limit": query.limit + 1}
    rows = db.execute(_OF_FLEET.replace("{where}", condition.sql), parameters, repeatable=True)
    return page(msgspec.convert(rows, list[FleetApp]), query.limit, ("package",))


_OF_FLEET = statement(__package__, "list_apps")

_OF_DEVICE = """
SELECT a.package, a.version_name, a.version_code, a.installed, a.first_seen_at, a.removed_at
FROM device_apps a JOIN devices d ON d.id = a.device_id
WHERE a.device_id = %(device_id)s AND d.deleted_at IS NULL
  AND (%(after)s::text IS NULL OR a.package COLLATE "C" > %(after)s)
ORDER BY a.package COLLATE "C" LIMIT %(limit)s
"""

_EXISTS = "SELECT id FROM devices WHERE id = %(device_id)s AND deleted_at IS NULL"
