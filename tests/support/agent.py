"""What the Android agent in the field sends, field by field (MonitorService.kt, 2025-12)."""

from datetime import UTC, datetime, timedelta
from typing import Any


def utc(when: datetime) -> str:
    """Format an instant as `java.time.Instant.toString()` does."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def an_hour_ago() -> datetime:
    """The start of a minute one hour ago: within retention, and at a fixed place in every bucket of up to a minute."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=1)


def heartbeat(when: datetime | None = None, **changes: Any) -> dict[str, Any]:
    """A heartbeat with every field that the agent sends; `changes` replace top-level fields.

    Numbers inside battery, system, memory and network pass through an untyped map on the device, so 85 becomes 85.0.
    """
    return {
        "device_id": "what the agent believes",
        "alias": "lobby",
        "app_version": "2.4.1",
        "timestamp_utc": utc(when or datetime.now(UTC)),
        "app_versions": {
            "io.unitynodes.unityapp": {"installed": True, "version_name": "1.9.0", "version_code": 190},
            "com.example.other": {"installed": False, "version_code": 0},
        },
        "speedtest_running_signals": {"has_service_notification": True, "foreground_recent_seconds": -1},
        "battery": {"pct": 85.0, "charging": True, "temperature_c": 31.299999237060547},
        "system": {
            "uptime_seconds": 86461.0,
            "android_version": "13",
            "sdk_int": 33.0,
            "patch_level": "2024-05-01",
            "build_id": "TQ3A.230805.001",
            "model": "SM-T225",
            "manufacturer": "samsung",
        },
        "memory": {"total_ram_mb": 2798.0, "avail_ram_mb": 1101.0, "pressure_pct": 60.0},
        "network": {"transport": "wifi", "ssid": "kiosks", "ip": "192.168.1.17"},
        "fcm_token": "fcm:of-the-agent",
        "is_device_owner": True,
        "power_ok": True,
        "doze_whitelisted": False,
        "net_validated": True,
        "queue_depth": 3,
        "monitored_foreground_recent_s": 0,
        "unity_process_running": True,
        **changes,
    }


# The value of each column after `heartbeat()`.
COLUMNS = {
    "status": "ok",
    "ip": "192.168.1.17",
    "battery_pct": 85,
    "plugged": True,
    "temp_c": 31.299999237060547,
    "network_type": "wifi",
    "ssid": "kiosks",
    "carrier": None,
    "signal_dbm": None,
    "uptime_s": 86461,
    "ram_used_mb": 1697,
    "pressure_pct": 60,
    "unity_pkg_version": "1.9.0",
    "unity_running": True,
    "agent_version": "2.4.1",
    "power_ok": True,
    "doze_whitelisted": False,
    "net_validated": True,
    "queue_depth": 3,
    "monitored_foreground_recent_s": 0,
}
DEVICE_COLUMNS = {
    "model": "SM-T225",
    "manufacturer": "samsung",
    "android_version": "13",
    "sdk_int": 33,
    "patch_level": "2024-05-01",
    "build_id": "TQ3A.230805.001",
    "is_device_owner": True,
    "fcm_token": "fcm:of-the-agent",
}
