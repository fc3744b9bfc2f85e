"""Parsing of a heartbeat's body, and the values that are recorded.

Two forms are accepted: the agent's nested form, and a flat form whose keys are the table's columns (a flat key takes
precedence). The fields are declared in nexmdm.devices.fields; members that are not columns are declared below.
`battery`, `system`, `memory` and `network` come from an untyped map on the device, so a whole number may arrive as
`85.0`, and -1 means "unknown".
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from nexmdm.devices.fields import FIELDS, Count, Field, Name
from nexmdm.runtime import lenient, validation
from nexmdm.runtime.validation import UNSTORABLE

RequestId = Annotated[str, Meta(min_length=1, max_length=128)]
Instant = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]
# A unique index of PostgreSQL holds at most 2,704 bytes. FCM's tokens have about 160 characters of ASCII.
_FCM_TOKEN = Annotated[str, Meta(max_length=2600, pattern=r"^[\x20-\x7e]*\Z")]
FcmToken = Annotated[_FCM_TOKEN, Meta(min_length=1)]
PackageName = Annotated[str, Meta(min_length=1, max_length=255)]
VersionCode = Annotated[int, Meta(ge=-1, le=2**63 - 1)]

# What a heartbeat says, by column of device_heartbeats; the declarations in nexmdm.devices.fields give the types.
Values: TypeAlias = dict[str, Any]
# A heartbeat as a caller in Python has it: the flat form or the nested one.
Given: TypeAlias = dict[str, Any]
# An inventory with more entries or more text is invalid; the limits also bound the cost of parsing.
MOST_APPS = 1000
_MOST_APP_BYTES = 256 * 1024


class App(Struct):
    """One app of `app_versions`."""

    installed: bool = True
    version_name: Name | None = None
    version_code: VersionCode | None = None


_APPS = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "description": "package -> {installed, version_name?, version_code?}: every app whose version matters."
            " An app that is not in it counts as removed; a report without it changes nothing."
        }
    ),
]
# Members of a heartbeat that are not columns.
_OTHERS: tuple[tuple[str, Any], ...] = (
    ("device_id", Name),
    ("timestamp_utc", Instant),
    ("fcm_token", _FCM_TOKEN),
    ("ping_request_id", Annotated[str, Meta(max_length=128)]),
    ("memory.total_ram_mb", Count),
    ("memory.avail_ram_mb", Count),
)


def _absent() -> Raw:
    return Raw(b"null")


def _body_type() -> type[Struct]:
    groups: dict[str, list[tuple[str, Any, Any]]] = {
        "": [("app_versions", _APPS, msgspec.field(default_factory=_absent))]
    }
    for path, type_, about in _members():
        group, _, member = path.rpartition(".")
        told = Annotated[type_, Meta(description=about)] if about else type_
        groups.setdefault(group, []).append((member, told | None, None))
    top = groups.pop("")
    for name, members in groups.items():
        top.append((name, msgspec.defstruct(name.capitalize(), members, module=__name__) | None, None))
    doc = "All members of a heartbeat that are read. Each is optional, and an invalid value becomes null."
    return msgspec.defstruct("HeartbeatBody", top, module=__name__, namespace={"__doc__": doc})


def _members() -> list[tuple[str, Any, str]]:
    return [(path, type_, "") for path, type_ in _OTHERS] + [
        (path, field.type, field.about) for field in FIELDS for path in field.paths
    ]


if TYPE_CHECKING:

    class HeartbeatBody(Struct):
        """Generated from the declarations."""

        app_versions: Raw

        def __getattr__(self, name: str) -> Any: ...

else:
    HeartbeatBody = _body_type()


class Report(NamedTuple):
    """One heartbeat.

    Attributes:
        values: by column, as expected by the database function; unknown values are absent.
        device_ts: the device's own time, not yet checked for plausibility.
        claimed: the device_id in the body.
    """

    values: Values
    device_ts: datetime | None
    claimed: str | None


def report(body: HeartbeatBody, unity_package: str, dropped: list[str]) -> Report:
    """The values to record from a heartbeat.

    Args:
        dropped: receives the paths of values that this function drops.
    """
    values: Values = {}
    for group, members, names in _PLAN:
        holder = getattr(body, group) if group else body
        if holder is not None:
            for name, value in zip(names, members(holder), strict=True):
                if value is not None and name not in values:
                    values[name] = value
    for name in _UNKNOWN_IF_NEGATIVE & values.keys():
        if values[name] < 0:
            del values[name]
    values.setdefault("status", None if "status" in dropped else "ok")
    if "ram_used_mb" not in values and body.memory is not None:
        total, available = body.memory.total_ram_mb, body.memory.avail_ram_mb
        if total is not None and available is not None and total >= 0 and available >= 0:
            values["ram_used_mb"] = max(0, total - available)
    if body.fcm_token:  # an agent without a token may send an empty string
        values["fcm_token"] = body.fcm_token
    if body.ping_request_id:
        values["ping_request_id"] = body.ping_request_id
    instant = _utc(body.timestamp_utc)
    if instant is not None:
        values["device_ts"] = instant
    if (text := bytes(body.app_versions)) != b"null":
        _add_apps(values, text, unity_package, dropped)
    return Report(values, instant, body.device_id)


def strictly(data: Given, unity_package: str) -> Report:
    """The same for Python callers, which get an error for an invalid value.

    Raises:
        Invalid: a field has an invalid value.
    """
    others = {name: value for name, value in data.items() if name != "app_versions"}
    body = validation.convert(others, HeartbeatBody, root="heartbeat_data")
    if (apps := data.get("app_versions")) is not None:
        validation.convert(apps, dict[str, App], root="heartbeat_data.app_versions")
        body.app_versions = Raw(msgspec.json.encode(apps))
    return report(body, unity_package, [])


def _plan() -> Iterator[tuple[str, Callable[[Any], tuple[Any, ...]], tuple[str, ...]]]:
    """(group, getter of all its members, names of their fields). If a field has two members, the first with a value
    counts, so flat members come first."""
    groups: dict[str, list[tuple[str, str]]] = {"": []}
    for field in FIELDS:
        for path in field.paths:
            group, _, member = path.rpartition(".")
            groups.setdefault(group, []).append((member, field.name))
    for group, members in groups.items():
        taken = tuple(member for member, _ in members)
        # With a single name attrgetter does not return a tuple.
        getter = attrgetter(*taken) if len(taken) > 1 else lambda holder, name=taken[0]: (getattr(holder, name),)
        yield group, getter, tuple(name for _, name in members)


def _unknown_if_negative(field: Field) -> bool:
    """Whether -1 means unknown."""
    return getattr(getattr(field.type, "__metadata__", (None,))[0], "ge", None) == -1


_PLAN = tuple(_plan())
_UNKNOWN_IF_NEGATIVE = frozenset(field.name for field in FIELDS if _unknown_if_negative(field))


def _add_apps(values: Values, text: bytes, unity_package: str, dropped: list[str]) -> None:
    """The app inventory, its hash, and the version of the monitored app."""
    apps = _apps(text, dropped)
    if apps is None:
        return
    inventory = [
        {
            "package": package,
            # null: the entry is invalid, so nothing is known about the app.
            "installed": None if app is None else app.installed,
            "version_name": app and app.version_name,
            "version_code": None if app is None or app.version_code == -1 else app.version_code,
        }
        for package, app in sorted(apps.items())
    ]
    encoded = msgspec.json.encode(inventory)
    values["apps"] = Raw(encoded)
    values["apps_hash"] = sha256(encoded).hexdigest()
    unity = apps.get(unity_package)
    if unity is not None and unity.version_name is not None and "unity_pkg_version" not in values:
        values["unity_pkg_version"] = unity.version_name


def _apps(text: bytes, dropped: list[str]) -> dict[str, App | None] | None:
    if len(text) > _MOST_APP_BYTES or text.count(b":") > 4 * MOST_APPS:
        dropped.append("app_versions")
        return None
    if b"\\u0000" not in text:
        try:
            return dict(_APP_MAP.decode(text))
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    found = lenient.entries(text, App, dropped, "app_versions")
    if found is None:
        dropped.append("app_versions")
        return None
    fit = {name: app for name, app in found.items() if 0 < len(name) <= 255 and not UNSTORABLE.search(name)}
    dropped += ["app_versions"] * (len(found) - len(fit))
    return fit


_APP_MAP = msgspec.json.Decoder(dict[PackageName, App], strict=False)


def _utc(instant: datetime | None) -> datetime | None:
    """The instant in UTC, which is assumed if there is no offset; None outside the years 1 to 9999."""
    if instant is None or instant.tzinfo is None:
        return instant and instant.replace(tzinfo=UTC)
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        return None
