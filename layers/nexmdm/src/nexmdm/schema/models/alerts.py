"""Alerts, their rules and mutes, and the fleet's history."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, Integer, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from nexmdm.schema.models.base import Base, Json, one_of

ALERT_CONDITIONS = (
    "silent",
    "low_battery",
    "high_temperature",
    "app_down",
    "app_background",
    "queue_growing",
    "agent_outdated",
    "duplicate_identity",
    "clock_wrong",
)

SEVERITIES = ("info", "warning", "critical")


class DeviceAlert(Base):
    """A problem of a device, from when the watch found it until it has been absent for the cool-down.

    At most one alert is open per device and condition; it is pending until `opened_at`. `notice` is the waiting
    notification; the run that sends it holds `claim_id` until `lease_until`. `clear_since`: when the condition ended,
    which may be temporary. `notified_at`: when the last notification was published; `notified_rule` and
    `notified_routes`: under which rule, and where.
    """

    __tablename__ = "device_alerts"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    condition: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    detail: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))
    clear_since: Mapped[datetime | None]
    recovered_at: Mapped[datetime | None]
    notice: Mapped[str | None]
    claim_id: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    notified_at: Mapped[datetime | None]
    rule: Mapped[str | None]
    severity: Mapped[str] = mapped_column(server_default=text("'warning'"))
    opened_at: Mapped[datetime | None] = mapped_column(server_default=text("clock_timestamp()"))
    muted: Mapped[bool] = mapped_column(server_default=text("false"))
    acked_at: Mapped[datetime | None]
    acked_by: Mapped[str | None]
    ack_note: Mapped[str | None]
    notified_rule: Mapped[str | None]
    notified_routes: Mapped[list[str] | None] = mapped_column(ARRAY(Text))

    __table_args__ = (
        CheckConstraint(one_of("condition", ALERT_CONDITIONS), name="condition"),
        CheckConstraint(one_of("severity", SEVERITIES), name="severity"),
        CheckConstraint("(acked_at IS NULL) = (acked_by IS NULL)", name="acked_by"),
        CheckConstraint(one_of("notice", ("opened", "recovered")), name="notice"),
        CheckConstraint("notice IS NULL OR (notice = 'recovered') = (recovered_at IS NOT NULL)", name="notice_fits"),
        CheckConstraint("(claim_id IS NULL) = (lease_until IS NULL)", name="lease_while_claimed"),
        CheckConstraint("claim_id IS NULL OR notice IS NOT NULL", name="claimed_to_be_told"),
        Index(
            "uq_device_alerts_open",
            "device_id",
            "condition",
            unique=True,
            postgresql_where=text("recovered_at IS NULL"),
        ),
        Index("ix_device_alerts_notice", "id", postgresql_where=text("notice IS NOT NULL")),
        Index("ix_device_alerts_device_id", "device_id", "id"),
    )


class AlertRule(Base):
    """A condition, the devices that it applies to, and where notifications are sent."""

    __tablename__ = "alert_rules"

    name: Mapped[str] = mapped_column(primary_key=True)
    condition: Mapped[str]
    filter: Mapped[Json | None]
    threshold: Mapped[float | None]
    for_seconds: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    severity: Mapped[str] = mapped_column(server_default=text("'warning'"))
    routes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    priority: Mapped[int] = mapped_column(Integer, server_default=text("100"))
    quiet_hours: Mapped[Json | None]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint(one_of("condition", ALERT_CONDITIONS), name="condition"),
        CheckConstraint(one_of("severity", SEVERITIES), name="severity"),
        CheckConstraint("for_seconds BETWEEN 0 AND 604800", name="for_seconds"),
    )


class AlertMute(Base):
    """Devices whose alerts send no notifications until a given time."""

    __tablename__ = "alert_mutes"

    mute_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    filter: Mapped[Json]
    condition: Mapped[str | None]
    until: Mapped[datetime]
    reason: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))

    __table_args__ = (
        CheckConstraint(f"condition IS NULL OR {one_of('condition', ALERT_CONDITIONS)}", name="condition"),
    )


class FleetHistory(Base):
    """The fleet at one hour; `grp` is a group's name, empty for the whole fleet."""

    __tablename__ = "fleet_history"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    grp: Mapped[str] = mapped_column(primary_key=True)
    devices: Mapped[int] = mapped_column(Integer)
    online: Mapped[int] = mapped_column(Integer)
    silent: Mapped[int] = mapped_column(Integer)
    low_battery: Mapped[int] = mapped_column(Integer)
    app_down: Mapped[int] = mapped_column(Integer)
    heartbeats: Mapped[int] = mapped_column(Integer)
    info: Mapped[int] = mapped_column(Integer)
    warning: Mapped[int] = mapped_column(Integer)
    critical: Mapped[int] = mapped_column(Integer)
