"""The simulated phone: its battery, network, clock and apps, and the heartbeat that describes them.

The heartbeat is nested, without nulls, and some whole numbers are written as 85.0, as by the existing agent.
"""

import random
import time
from datetime import UTC, datetime
from typing import Any

from local.fleet.storage import App, Body, Stored

AGENT = "com.nexmdm"
AGENT_VERSION = "1.0.7"
UNITY = "io.unitynodes.unityapp"
# These pass through an untyped map on the device, where a whole number can become a floating-point number.
UNTYPED = ("battery", "system", "memory", "network")
MODELS = [("Pixel 6a", "Google", "14", 34), ("SM-A155F", "samsung", "13", 33), ("moto g24", "motorola", "12", 32)]


class Phone:
    """A phone with an agent. Its values change a little with every heartbeat.

    Args:
        stored: its persistent storage, which includes its apps.

    Attributes:
        clock_offset: seconds by which its clock is wrong.
        has_unity: whether the monitored app is installed.
        hides_processes: Android mounts /proc with hidepid, so the agent's process check always returns false.
        install_error: why this phone refuses to install packages; None installs them.
        cut_off: its network settings are wrong; nothing reaches it until it is set up by hand.
    """

    def __init__(self, alias: str, rng: random.Random, stored: Stored | None = None) -> None:
        self.alias = alias
        self._rng = rng
        self._stored = stored or Stored()
        self._booted = time.time() - rng.uniform(60, 30 * 86_400)
        self._battery = rng.uniform(20, 100)
        self._charging = rng.random() < 0.5
        self.model, self._maker, self._android, self._sdk = rng.choice(MODELS)
        self._total_ram = rng.choice([3_800, 5_700, 7_600])
        self._transport = rng.choices(["wifi", "cell", "none"], [80, 18, 2])[0]
        self._ip = f"192.168.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        self.has_unity = rng.random() < 0.9
        self.hides_processes = rng.random() < 0.3
        self.is_device_owner = True
        self.install_error: str | None = None
        self.cut_off = False
        self.clock_offset = 0.0

    @property
    def agent_version(self) -> str:
        app = self._stored.apps.get(AGENT)
        return app.version_name if app else AGENT_VERSION

    def version_code(self, package: str) -> int | None:
        """The installed version of a package; None if it is not installed, or came with the phone."""
        app = self._stored.apps.get(package)
        return app.version_code if app else None

    def install(self, package: str, version_code: int, version_name: str) -> None:
        """Install a package. Raises ValueError if Android rejects it, for example because a newer version is
        installed."""
        if self.install_error:
            raise ValueError(self.install_error)
        if (self.version_code(package) or 0) > version_code:
            raise ValueError("INSTALL_FAILED_VERSION_DOWNGRADE")
        self._stored.apps[package] = App(version_code, version_name)
        self.has_unity = self.has_unity or package == UNITY

    def has(self, package: str) -> bool:
        return package in self._stored.apps or package == AGENT or (package == UNITY and self.has_unity)

    def clock(self) -> float:
        """Seconds since 1970 by the phone's own clock."""
        return time.time() + self.clock_offset

    def reboot(self) -> None:
        self._booted = time.time()

    def heartbeat(
        self,
        device_id: str,
        fcm_token: str | None,
        queue_depth: int,
        ping_request_id: str | None = None,
        ago: float = 0.0,
    ) -> Body:
        """A new body.

        Args:
            ping_request_id: makes the heartbeat the answer to that ping.
            ago: its age in seconds.
        """
        self._age()
        rng = self._rng
        running = self.has_unity and rng.random() < 0.95
        body: Body = {
            "device_id": device_id,
            "alias": self.alias,
            "app_version": self.agent_version,
            "timestamp_utc": timestamp(self.clock() - ago),
            "app_versions": {
                UNITY: self._unity_part(),
                "org.zwanoo.android.speedtest": {"installed": False, "version_name": None, "version_code": None},
            },
            "speedtest_running_signals": {
                "has_service_notification": rng.random() < 0.1,
                "foreground_recent_seconds": rng.choice([-1, rng.randrange(3600)]),
            },
            "battery": self._battery_part(),
            "system": self._system_part(ago),
            "memory": self._memory_part(),
            "network": self._network_part(),
            "fcm_token": fcm_token,
            "is_ping_response": True if ping_request_id else None,
            "ping_request_id": ping_request_id,
            "self_heal_hints": None,
            "is_device_owner": self.is_device_owner,
            "power_ok": self._charging or self._battery > 15,
            "doze_whitelisted": rng.random() < 0.9,
            "net_validated": self._transport != "none",
            "queue_depth": queue_depth,
            "monitored_foreground_recent_s": rng.randrange(60) if running else -1,
            "unity_process_running": running and not self.hides_processes,
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

    def _unity_part(self) -> Body:
        if not self.has_unity:
            return {"installed": False, "version_name": None, "version_code": None}
        app = self._stored.apps.get(UNITY, App(241, "2.4.1"))
        return {"installed": True, "version_name": app.version_name, "version_code": app.version_code}

    def _battery_part(self) -> Body:
        temperature = round(self._rng.uniform(22, 41), 1)
        return {"pct": round(self._battery), "charging": self._charging, "temperature_c": temperature}

    def _system_part(self, ago: float) -> Body:
        return {
            "uptime_seconds": max(0, int(time.time() - ago - self._booted)),
            "android_version": self._android,
            "sdk_int": self._sdk,
            "patch_level": "2025-11-05",
            "build_id": "UP1A.231005.007",
            "model": self.model,
            "manufacturer": self._maker,
        }

    def _memory_part(self) -> Body:
        available = int(self._total_ram * self._rng.uniform(0.2, 0.6))
        pressure = round(100 - 100 * available / self._total_ram)
        return {"total_ram_mb": self._total_ram, "avail_ram_mb": available, "pressure_pct": pressure}

    def _network_part(self) -> Body:
        if self._transport == "wifi":
            return {"transport": "wifi", "ssid": "kiosk", "carrier": None, "ip": self._ip}
        if self._transport == "cell":
            return {"transport": "cell", "ssid": None, "carrier": "Example Mobile", "ip": self._ip}
        return {"transport": "none", "ssid": None, "carrier": None, "ip": None}


def timestamp(seconds: float) -> str:
    """ISO 8601 with milliseconds and Z, in the agent's format."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def without_nulls(body: Body) -> Body:
    return {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in body.items()
        if value is not None
    }
