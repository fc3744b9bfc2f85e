"""What is worth an alert: each condition is declared once, here, with its SQL in `condition_<name>.sql`.

A condition's SQL finds the living devices that are in it now, as `device_id` and `detail`, what a notification adds. A
device that falls silent keeps its other conditions: nothing says that they are over.
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
    """What a rule watches for."""

    SILENT = "silent"  # the server has not heard from it for three intervals (never: since it was enrolled)
    LOW_BATTERY = "low_battery"  # its last report gives the battery less than the threshold
    HIGH_TEMPERATURE = "high_temperature"  # its last report gives the battery at least the threshold
    APP_DOWN = "app_down"  # its monitored app is installed and does not run
    APP_BACKGROUND = "app_background"  # its monitored app was not in front for longer than the threshold
    QUEUE_GROWING = "queue_growing"  # it holds back as many reports as the threshold, and ever more
    AGENT_OUTDATED = "agent_outdated"  # its agent is older than the build that it has been offered for the threshold
    DUPLICATE_IDENTITY = "duplicate_identity"  # two phones seem to use one device token or one hardware id
    CLOCK_WRONG = "clock_wrong"  # its clock is off by more than the threshold


class Declaration(Struct, frozen=True, kw_only=True):
    """One condition.

    Attributes:
        title: how a notification begins.
        unit: of the threshold; None when the condition has none.
        least, most: bounds of the threshold.
        default: the threshold of a rule that has none, out of the settings.
        phrase: what a notification says of one device, from the alert's detail; empty for nothing.
    """

    title: str
    unit: str | None = None
    least: float = 0
    most: float = 0
    default: Callable[[Settings], float | None] = lambda _: None
    phrase: Callable[[Detail], str] = lambda _: ""


def _last_heard(detail: Detail) -> str:
    at = detail.get("last_seen_at")
    return f"last heard {datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else "never heard"


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
        title="App not in front",
        unit="seconds",
        least=0,
        most=86_400,
        default=lambda config: config.app_background_seconds,
        phrase=lambda detail: f"{detail.get('package')}, {detail.get('foreground_seconds')} s",
    ),
    Condition.QUEUE_GROWING: Declaration(
        title="Reports pile up",
        unit="reports",
        least=1,
        most=100_000,
        default=lambda config: 10,
        phrase=lambda detail: f"{detail.get('queue_depth')} waiting",
    ),
    Condition.AGENT_OUTDATED: Declaration(
        title="Agent behind the rollout",
        unit="hours",
        least=0,
        most=8760,
        default=lambda config: config.alert_rollout_hours,
        phrase=lambda detail: f"{detail.get('agent_version')}, offered {detail.get('offered')}",
    ),
    Condition.DUPLICATE_IDENTITY: Declaration(
        title="Two phones, one identity",
        phrase=lambda detail: f"same hardware as {twin}" if (twin := detail.get("same_hardware")) else "one token",
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
    """The condition's query. It takes `threshold` and the parameters of `parameters()`."""
    return _SQL[condition]


def parameters(config: Settings) -> dict[str, object]:
    """What the queries take besides the threshold."""
    return {
        "interval_seconds": config.heartbeat_interval_seconds,
        "bucket_seconds": config.heartbeat_bucket_seconds,
        "agent_package": config.agent_package,
        "app_package": config.unity_package,
    }


_SQL = {condition: statement(__package__, f"condition_{condition}") for condition in DECLARATIONS}
