"""The body of a heartbeat as agents send it, and the row that it becomes.

Two forms are accepted: the agent's nested one, and the flat one whose keys are the table's columns (a flat key wins).
Keys that are not listed here are ignored. `battery`, `system`, `memory` and `network` come from an untyped map on the
device, so a whole number may arrive as `85.0`, and -1 stands for "unknown".
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct

T = TypeVar("T")

Count = Annotated[int, Meta(ge=-1, le=2_147_483_647)]
Percent = Annotated[int, Meta(ge=-1, le=100)]
Celsius = Annotated[float, Meta(ge=-100, le=200)]
Seconds = Annotated[int, Meta(ge=-1, le=10**12)]
Dbm = Annotated[int, Meta(ge=-200, le=100)]
Short = Annotated[str, Meta(max_length=50)]
Name = Annotated[str, Meta(max_length=200)]
RequestId = Annotated[str, Meta(max_length=128)]
Instant = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]
FcmToken = Annotated[str, Meta(min_length=1, max_length=4096)]


class Battery(Struct):
    pct: Percent | None = None
    charging: bool | None = None
    temperature_c: Celsius | None = None


class System(Struct):
    uptime_seconds: Seconds | None = None
    android_version: Name | None = None
    sdk_int: Count | None = None
    build_id: Name | None = None
    model: Name | None = None
    manufacturer: Name | None = None


class Memory(Struct):
    total_ram_mb: Count | None = None
    avail_ram_mb: Count | None = None


class Network(Struct):
    transport: Short | None = None
    ip: Name | None = None


class App(Struct):
    version_name: Name | None = None


class Report(Struct, kw_only=True):
    """One heartbeat as PostgreSQL takes it: column names, `device_ts` still unjudged, unknown values null."""

    device_ts: datetime | None
    status: str
    ip: str | None
    battery_pct: int | None
    plugged: bool | None
    temp_c: float | None
    network_type: str | None
    signal_dbm: int | None
    uptime_s: int | None
    ram_used_mb: int | None
    unity_pkg_version: str | None
    unity_running: bool | None
    agent_version: str | None
    power_ok: bool | None
    doze_whitelisted: bool | None
    net_validated: bool | None
    queue_depth: int | None
    fcm_token: str | None
    ping_request_id: str | None
    model: str | None
    manufacturer: str | None
    android_version: str | None
    sdk_int: int | None
    build_id: str | None
    is_device_owner: bool | None


class HeartbeatBody(Struct, kw_only=True):
    """Everything that this server reads of a heartbeat; all of it may be absent."""

    device_id: Name | None = None
    timestamp_utc: Instant | None = None
    app_version: Short | None = None
    app_versions: dict[str, App | None] | None = None
    battery: Battery | None = None
    system: System | None = None
    memory: Memory | None = None
    network: Network | None = None
    fcm_token: Annotated[str, Meta(max_length=4096)] | None = None
    ping_request_id: RequestId | None = None
    is_device_owner: bool | None = None
    power_ok: bool | None = None
    doze_whitelisted: bool | None = None
    net_validated: bool | None = None
    queue_depth: Count | None = None
    unity_process_running: bool | None = None

    status: Literal["ok", "warn", "error"] = "ok"
    ip: Name | None = None
    battery_pct: Percent | None = None
    plugged: bool | None = None
    temp_c: Celsius | None = None
    network_type: Short | None = None
    signal_dbm: Dbm | None = None
    uptime_s: Seconds | None = None
    ram_used_mb: Count | None = None
    unity_pkg_version: Name | None = None
    unity_running: bool | None = None
    agent_version: Short | None = None

    def report(self, unity_package: str) -> Report:
        battery, system = self.battery or Battery(), self.system or System()
        network = self.network or Network()
        unity = (self.app_versions or {}).get(unity_package) or App()
        return Report(
            device_ts=_utc(self.timestamp_utc),
            status=self.status,
            ip=_first(self.ip, network.ip),
            battery_pct=_known(_first(self.battery_pct, battery.pct)),
            plugged=_first(self.plugged, battery.charging),
            temp_c=_first(self.temp_c, battery.temperature_c),
            network_type=_first(self.network_type, network.transport),
            signal_dbm=self.signal_dbm,
            uptime_s=_known(_first(self.uptime_s, system.uptime_seconds)),
            ram_used_mb=_known(_first(self.ram_used_mb, _ram_used(self.memory))),
            unity_pkg_version=_first(self.unity_pkg_version, unity.version_name),
            unity_running=_first(self.unity_running, self.unity_process_running),
            agent_version=_first(self.agent_version, self.app_version),
            power_ok=self.power_ok,
            doze_whitelisted=self.doze_whitelisted,
            net_validated=self.net_validated,
            queue_depth=_known(self.queue_depth),
            fcm_token=self.fcm_token or None,  # an agent that has none yet may say so with an empty text
            ping_request_id=self.ping_request_id or None,
            model=system.model,
            manufacturer=system.manufacturer,
            android_version=system.android_version,
            sdk_int=_known(system.sdk_int),
            build_id=system.build_id,
            is_device_owner=self.is_device_owner,
        )


def _first(flat: T | None, nested: T | None) -> T | None:
    return nested if flat is None else flat


def _utc(instant: datetime | None) -> datetime | None:
    """Without an offset it is UTC, as the field's name says; one that is no instant of years 1 to 9999 is unknown."""
    if instant is None or instant.tzinfo is None:
        return instant and instant.replace(tzinfo=UTC)
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        return None


def _known(value: int | None) -> int | None:
    return None if value is None or value < 0 else value


def _ram_used(memory: Memory | None) -> int | None:
    if memory is None or _known(memory.total_ram_mb) is None or _known(memory.avail_ram_mb) is None:
        return None
    return max(0, memory.total_ram_mb - memory.avail_ram_mb)
