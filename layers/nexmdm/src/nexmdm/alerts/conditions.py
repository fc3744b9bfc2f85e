"""The conditions of alerts: each is declared here once, with its SQL in `condition_<name>.sql`.

A condition's SQL finds the enrolled devices that meet it now, as `device_id` and `detail`, which notifications show. A
device that falls silent keeps its other conditions, because no report says that they have ended.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from nexmdm.runtime.database import statement
from nexmdm.runtime.settings import Settings

# What a condition's SQL says of a device beside its id: each condition has its own members.
Detail: TypeAlias = dict[str, Any]


class Condition(StrEnum):
    """The condition of a rule."""

    SILENT = (
        "silent"  # the server has not heard from it for three intervals (if it never reported, since its enrollment)
    )
    LOW_BATTERY = "low_battery"  # its last report has a battery charge below the threshold
    HIGH_TEMPERATURE = "high_temperature"  # its last report has a battery temperature at or above the threshold
    APP_DOWN = "app_down"  # its monitored app is installed and not running
    APP_BACKGROUND = "app_background"  # its monitored app has not been in the foreground for longer than the threshold
    QUEUE_GROWING = "queue_growing"  # it has at least as many unsent reports as the threshold, and the number grows
    AGENT_OUTDATED = (
        "agent_outdated"  # its agent is older than the build that it has been offered for at least the threshold
    )
    DUPLICATE_IDENTITY = "duplicate_identity"  # two phones seem to use one device token or one hardware id
    CLOCK_WRONG = "clock_wrong"  # its clock is wrong by more than the threshold


class Declaration(Struct, frozen=True, kw_only=True):
    """One condition.

    Attributes:
        title: the beginning of a notification.
        unit: of the threshold; None if the condition has no threshold.
        least, most: bounds of the threshold.
        default: the threshold of a rule that does not set one, from the settings.
        phrase: the text about one device in a notification, from the alert's detail; may be empty.
    """

    title: str
    unit: str | None = None
    least: float = 0
    most: float = 0
    default: Callable[[Settings], float | None] = lambda _: None
    phrase: Callable[[Detail], str] = lambda _: ""


def _last_heard(detail: Detail) -> str:
    at = detail.get("last_seen_at")
    return (
        f"last heard from {datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else "never heard from"
    )


DECLARATIONS: dict[Condition, Declaration] = {
    Condition.SILENT: Declaration(title="Silent", phrase=_last_heard),
    Condition.LOW_BATTERY: Declaration(
        title="Low battery",
        unit="percent",
        least=1,
        most=100,
        default=lambda config: 15,
        phrase=lambda detail: f"{detail.get('battery_pct')} %",
    ),
    Condition.HIGH_TEMPERATURE: Declaration(
        title="High temperature",
        unit="degrees Celsius",
        least=-50,
        most=150,
        default=lambda config: 50,
        phrase=lambda detail: f"{detail.get('temp_c')} °C",
    ),
    Condition.APP_DOWN: Declaration(
        title="App down",
        unit="seconds",
        least=0,
        most=86_400,
        default=lambda config: config.app_background_seconds,
        phrase=lambda detail: str(detail.get("package")),
    ),
    Condition.APP_BACKGROUND: Declaration(
        title="App in background",
        unit="seconds",
        least=0,
        most=86_400,
        default=lambda config: config.app_background_seconds,
        phrase=lambda detail: f"{detail.get('package')}, {detail.get('foreground_seconds')} s",
    ),
    Condition.QUEUE_GROWING: Declaration(
        title="Report queue growing",
        unit="reports",
        least=1,
        most=100_000,
        default=lambda config: 10,
        phrase=lambda detail: f"{detail.get('queue_depth')} waiting",
    ),
    Condition.AGENT_OUTDATED: Declaration(
        title="Agent outdated",
        unit="hours",
        least=0,
        most=8760,
        default=lambda config: config.alert_rollout_hours,
        phrase=lambda detail: f"{detail.get('agent_version')}, offered {detail.get('offered')}",
    ),
    Condition.DUPLICATE_IDENTITY: Declaration(
        title="Two phones, one identity",
        phrase=lambda detail: f"same hardware as {twin}" if (twin := detail.get("same_hardware")) else "shared token",
    ),
    Condition.CLOCK_WRONG: Declaration(
        title="Clock wrong",
        unit="seconds",
        least=60,
        most=31_536_000,
        default=lambda config: 300,
        phrase=lambda detail: f"{detail.get('seconds')} s",
    ),
}


def sql(condition: Condition) -> str:
    """The condition's query. Its parameters are `threshold` and those of `parameters()`."""
    return _SQL[condition]


def parameters(config: Settings) -> dict[str, object]:
    """The parameters of the queries except the threshold."""
    return {
        "interval_seconds": config.heartbeat_interval_seconds,
        "bucket_seconds": config.heartbeat_bucket_seconds,
        "agent_package": config.agent_package,
        "app_package": config.unity_package,
    }


_SQL = {condition: statement(__package__, f"condition_{condition}") for condition in DECLARATIONS}
