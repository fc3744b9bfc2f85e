"""The fields that a device reports: one declaration per field, from which the rest is derived.

The reader of heartbeats (nexmdm.heartbeats.body), the columns of the models, of the device lists and of a device's
history, the API's document, and the rows that `nexmdm devices show`, the console and docs/device.md show come from
`FIELDS`. A new field needs its line here, and a revision that adds its column and creates the next version of the
heartbeat's database function; CONTRIBUTING.md walks through an example.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct, defstruct

# The version of the database function that takes these fields; it changes with them.
RECORD_HEARTBEATS = "record_heartbeats_v3"

# Agents send -1 for "unknown" in every whole number except the signal.
Count = Annotated[int, Meta(ge=-1, le=2_147_483_647)]
Percent = Annotated[int, Meta(ge=-1, le=100)]
Seconds = Annotated[int, Meta(ge=-1, le=10**12)]
Celsius = Annotated[float, Meta(ge=-100, le=200)]
Dbm = Annotated[int, Meta(ge=-200, le=100)]
Flag = bool
Status = Literal["ok", "warn", "error"]
# Descriptive text is cleaned and truncated at its limit; an invalid name or identifier counts as absent.
Text = Annotated[str, Meta(max_length=200, extra={"clean": True})]
ShortText = Annotated[str, Meta(max_length=50, extra={"clean": True})]
Name = Annotated[str, Meta(max_length=200)]
ShortName = Annotated[str, Meta(max_length=50)]


class Field(NamedTuple):
    """One field.

    Attributes:
        name: the column, and the member of the API's responses.
        type: the type with its bounds, by which it is parsed.
        paths: where a heartbeat may contain it; the first one with a value counts. In the flat form it is the name.
        about: the description in the OpenAPI document and docs/device.md.
        label: the label in user interfaces; empty if a page shows the field in its own way.
        unit: shown after the value.
        kept: `history` in every heartbeat and the last status, `device` on the device's own row, which a report without
        the value leaves unchanged. charted: the minimum, maximum and last value of each hour are kept for 90 days, in
        three columns of device_history.
    """

    name: str
    type: Any
    paths: tuple[str, ...]
    about: str
    label: str = ""
    unit: str = ""
    kept: Literal["history", "device"] = "history"
    charted: bool = False


FIELDS = (
    Field("status", Status, ("status",), "ok, warn or error; `ok` when the report has none"),
    Field("ip", Name, ("ip", "network.ip"), "IP address in the device's network"),
    Field("battery_pct", Percent, ("battery_pct", "battery.pct"), "battery in percent", charted=True),
    Field("plugged", Flag, ("plugged", "battery.charging"), "whether it is charging"),
    Field(
        "temp_c",
        Celsius,
        ("temp_c", "battery.temperature_c"),
        "temperature of the battery in degrees Celsius",
        charted=True,
    ),
    Field("network_type", ShortText, ("network_type", "network.transport"), "wifi, cell or none"),
    Field("ssid", Text, ("ssid", "network.ssid"), "name of the WiFi network", "WiFi network"),
    Field("carrier", Text, ("carrier", "network.carrier"), "name of the mobile network's operator", "Carrier"),
    Field("signal_dbm", Dbm, ("signal_dbm",), "signal strength in dBm", charted=True),
    Field("uptime_s", Seconds, ("uptime_s", "system.uptime_seconds"), "seconds since the device started"),
    Field("ram_used_mb", Count, ("ram_used_mb",), "memory in use in MB: total_ram_mb less avail_ram_mb", charted=True),
    Field(
        "pressure_pct",
        Percent,
        ("pressure_pct", "memory.pressure_pct"),
        "memory pressure in percent",
        "Memory pressure",
        "%",
    ),
    Field("unity_pkg_version", Name, ("unity_pkg_version",), "version of the monitored app, from app_versions"),
    Field("unity_running", Flag, ("unity_running", "unity_process_running"), "whether the monitored app runs"),
    Field("agent_version", ShortName, ("agent_version", "app_version"), "version of the agent"),
    Field("power_ok", Flag, ("power_ok",), "whether the agent is exempt from battery optimization", "Power OK"),
    Field("doze_whitelisted", Flag, ("doze_whitelisted",), "whether the agent is exempt from Doze"),
    Field("net_validated", Flag, ("net_validated",), "whether Android has validated its internet connection"),
    Field("queue_depth", Count, ("queue_depth",), "number of reports waiting on the device"),
    Field(
        "monitored_foreground_recent_s",
        Seconds,
        ("monitored_foreground_recent_s",),
        "seconds since the monitored app was in the foreground",
        "Monitored app in front",
        "s ago",
    ),
    Field("model", Text, ("model", "system.model"), "model", kept="device"),
    Field("manufacturer", Text, ("manufacturer", "system.manufacturer"), "manufacturer", kept="device"),
    Field("android_version", Name, ("android_version", "system.android_version"), "Android's version", kept="device"),
    Field("sdk_int", Count, ("sdk_int", "system.sdk_int"), "Android's API level", kept="device"),
    Field(
        "patch_level",
        Name,
        ("patch_level", "system.patch_level"),
        "date of the security patches",
        "Security patches",
        kept="device",
    ),
    Field("build_id", Name, ("build_id", "system.build_id"), "Android's build", "Android build", kept="device"),
    Field("is_device_owner", Flag, ("is_device_owner",), "whether the agent is device owner", kept="device"),
)

HISTORY = tuple(field for field in FIELDS if field.kept == "history")
OF_DEVICE = tuple(field for field in FIELDS if field.kept == "device")
CHARTED = tuple(field for field in FIELDS if field.charted)


def columns(fields: tuple[Field, ...], table: str = "") -> str:
    """The fields' columns as an SQL list, each with the prefix `table.`."""
    return ", ".join(f"{table}.{field.name}" if table else field.name for field in fields)


def sql_type(field: Field) -> str:
    """The PostgreSQL type: text, integer, bigint, double precision or boolean."""
    base = getattr(field.type, "__origin__", field.type)
    if base is int:
        return "integer" if field.type.__metadata__[0].le <= 2_147_483_647 else "bigint"
    return {bool: "boolean", float: "double precision"}.get(base, "text")


def _answer(name: str, fields: tuple[Field, ...], doc: str) -> type[Struct]:
    members = []
    for field in fields:
        base = getattr(field.type, "__origin__", field.type)
        bounds = getattr(field.type, "__metadata__", (Meta(),))[0]
        kind = field.type if base is Literal else base
        if base is int or base is float:
            # Unknown is null in an answer.
            kind = Annotated[base, Meta(ge=0 if bounds.ge == -1 else bounds.ge, le=bounds.le)]
        unit = {"x-unit": field.unit} if field.label and field.unit else None
        told = Meta(description=field.about, title=field.label or None, extra_json_schema=unit)
        members.append((field.name, Annotated[kind | None, told]))
    return defstruct(name, members, module=__name__, kw_only=True, namespace={"__doc__": doc})


if TYPE_CHECKING:

    class Reported(Struct):
        """Generated from the declarations."""

        def __getattr__(self, name: str) -> Any: ...

    class Described(Reported):
        """Generated from the declarations."""

else:
    # Members of responses. `title` is the label and `x-unit` the unit that the CLI and the console show.
    Reported = _answer("Reported", HISTORY, "Values of a heartbeat; null where it had no valid value.")
    Described = _answer("Described", FIELDS, "Values of a heartbeat, and the device's description of itself.")
