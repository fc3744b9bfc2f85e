"""The heartbeat as the agent in the field writes it: nested, without nulls, and some whole numbers as 85.0."""

import random
import time
from datetime import UTC, datetime
from typing import Any

AGENT_VERSION = "1.0.7"
UNITY = "io.unitynodes.unityapp"
# These pass through an untyped map on the device, where a whole number can become a floating one.
UNTYPED = ("battery", "system", "memory", "network")
MODELS = [("Pixel 6a", "Google", "14", 34), ("SM-A155F", "samsung", "13", 33), ("moto g24", "motorola", "12", 32)]


class Phone:
    """The device's own state: battery, uptime, network. Changes a little with every heartbeat."""

    def __init__(self, alias: str, rng: random.Random) -> None:
        self.alias = alias
        self._rng = rng
        self._booted = time.time() - rng.uniform(60, 30 * 86_400)
        self._battery = rng.uniform(20, 100)
        self._charging = rng.random() < 0.5
        self._model, self._maker, self._android, self._sdk = rng.choice(MODELS)
        self._total_ram = rng.choice([3_800, 5_700, 7_600])
        self._transport = rng.choices(["wifi", "cell", "none"], [80, 18, 2])[0]
        self._ip = f"192.168.{rng.randrange(256)}.{rng.randrange(1, 255)}"

    def heartbeat(
        self, device_id: str, fcm_token: str | None, queue_depth: int, ping_request_id: str | None = None
    ) -> dict[str, Any]:
        """A new body with the present time; `ping_request_id` makes it the answer to that ping."""
        self._age()
        rng = self._rng
        body = {
            "device_id": device_id,
            "alias": self.alias,
            "app_version": AGENT_VERSION,
            "timestamp_utc": timestamp(time.time()),
            "app_versions": {
                UNITY: {"installed": True, "version_name": "2.4.1", "version_code": 241},
                "org.zwanoo.android.speedtest": {"installed": False, "version_name": None, "version_code": None},
            },
            "speedtest_running_signals": {
                "has_service_notification": rng.random() < 0.1,
                "foreground_recent_seconds": rng.choice([-1, rng.randrange(3600)]),
            },
            "battery": self._battery_part(),
            "system": self._system_part(),
            "memory": self._memory_part(),
            "network": self._network_part(),
            "fcm_token": fcm_token,
            "is_ping_response": True if ping_request_id else None,
            "ping_request_id": ping_request_id,
            "self_heal_hints": None,
            "is_device_owner": True,
            "power_ok": self._charging or self._battery > 15,
            "doze_whitelisted": rng.random() < 0.9,
            "net_validated": self._transport != "none",
            "queue_depth": queue_depth,
            "monitored_foreground_recent_s": rng.choice([-1, rng.randrange(600)]),
            "unity_process_running": rng.random() < 0.95,
        }
        for part in UNTYPED:
            body[part] = {key: self._untyped(value) for key, value in body[part].items()}
        return without_nulls(body)

    def _age(self) -> None:
        self._battery += self._rng.uniform(0, 1.5) * (1 if self._charging else -1)
        if not 10 < self._battery < 100:
            self._charging = self._battery <= 10
            self._battery = min(100.0, max(5.0, self._battery))

    def _untyped(self, value: Any) -> Any:
        return float(value) if type(value) is int and self._rng.random() < 0.3 else value

    def _battery_part(self) -> dict[str, Any]:
        temperature = round(self._rng.uniform(22, 41), 1)
        return {"pct": round(self._battery), "charging": self._charging, "temperature_c": temperature}

    def _system_part(self) -> dict[str, Any]:
        return {
            "uptime_seconds": int(time.time() - self._booted),
            "android_version": self._android,
            "sdk_int": self._sdk,
            "patch_level": "2025-11-05",
            "build_id": "UP1A.231005.007",
            "model": self._model,
            "manufacturer": self._maker,
        }

    def _memory_part(self) -> dict[str, Any]:
        available = int(self._total_ram * self._rng.uniform(0.2, 0.6))
        pressure = round(100 - 100 * available / self._total_ram)
        return {"total_ram_mb": self._total_ram, "avail_ram_mb": available, "pressure_pct": pressure}

    def _network_part(self) -> dict[str, Any]:
        if self._transport == "wifi":
            return {"transport": "wifi", "ssid": "kiosk", "carrier": None, "ip": self._ip}
        if self._transport == "cell":
            return {"transport": "cell", "ssid": None, "carrier": "Example Mobile", "ip": self._ip}
        return {"transport": "none", "ssid": None, "carrier": None, "ip": None}


def timestamp(seconds: float) -> str:
    """ISO 8601 with milliseconds and Z, as the agent writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
