"""The schema as SQLAlchemy 2 models. Every state is a CHECK, every guarantee a constraint, every constraint named.

One module per domain. Migrations build the schema (`migrations/versions`), `alembic check` and `nexmdm.schema` compare
it. The verb modules run their own SQL and do not import this package: SQLAlchemy's ORM adds 345 ms to a cold start,
psycopg2 alone 30 ms.
"""

from nexmdm.schema.models.activity import OperatorEvent
from nexmdm.schema.models.alerts import ALERT_CONDITIONS, SEVERITIES, AlertMute, AlertRule, DeviceAlert, FleetHistory
from nexmdm.schema.models.base import LABEL_LIMITS, NAMING_CONVENTION, Base
from nexmdm.schema.models.builds import (
    BUILD_STATES,
    INSTALLATION_STATES,
    ApkDownloadEvent,
    ApkDownloadRate,
    ApkInstallation,
    ApkSigner,
    ApkVersion,
)
from nexmdm.schema.models.commands import DELIVERIES, DISPATCH_STATES, CommandBatch, FcmDispatch, Schedule, ScheduleRun
from nexmdm.schema.models.devices import Device, DeviceApp, DeviceGroup
from nexmdm.schema.models.enrollment import EnrollmentToken, RegistrationRefusal
from nexmdm.schema.models.heartbeats import DeviceHeartbeat, DeviceHistory, DeviceLastStatus

__all__ = [
    "ALERT_CONDITIONS",
    "BUILD_STATES",
    "DELIVERIES",
    "DISPATCH_STATES",
    "INSTALLATION_STATES",
    "LABEL_LIMITS",
    "NAMING_CONVENTION",
    "SEVERITIES",
    "AlertMute",
    "AlertRule",
    "ApkDownloadEvent",
    "ApkDownloadRate",
    "ApkInstallation",
    "ApkSigner",
    "ApkVersion",
    "Base",
    "CommandBatch",
    "Device",
    "DeviceAlert",
    "DeviceApp",
    "DeviceGroup",
    "DeviceHeartbeat",
    "DeviceHistory",
    "DeviceLastStatus",
    "EnrollmentToken",
    "FcmDispatch",
    "FleetHistory",
    "OperatorEvent",
    "RegistrationRefusal",
    "Schedule",
    "ScheduleRun",
]
