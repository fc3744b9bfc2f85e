"""Heartbeats, the last status, and a device's history."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, func, text
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column

from nexmdm.devices.fields import CHARTED, HISTORY, sql_type
from nexmdm.schema.models.base import TYPES, Base, one_of


def _ten_second_bucket(context: DefaultExecutionContext) -> datetime:
    """The bucket of a row that is added through the ORM: ten seconds, UTC. In the verbs PostgreSQL computes it."""
    # SQLAlchemy has no types for this.
    ts = context.get_current_parameters().get("ts") or datetime.now(UTC)  # type: ignore[no-untyped-call]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (ts - epoch) // timedelta(seconds=10) * timedelta(seconds=10)


class _Report:
    """Columns for the fields of a heartbeat, shared by the history and the last status."""


for _field in HISTORY:
    _default = "ok" if _field.name == "status" else None
    setattr(_Report, _field.name, mapped_column(TYPES[sql_type(_field)], server_default=_default))


class DeviceHeartbeat(_Report, Base):
    """At most one row per device and bucket, ensured by the unique key. Partitioned by bucket."""

    __tablename__ = "device_heartbeats"

    hb_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    bucket: Mapped[datetime] = mapped_column(primary_key=True, default=_ten_second_bucket)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    ts: Mapped[datetime] = mapped_column(server_default=func.now(), default=lambda: datetime.now(UTC))
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("device_id", "bucket"),
        CheckConstraint(one_of("status", ("ok", "warn", "error")), name="status"),
        CheckConstraint("battery_pct BETWEEN 0 AND 100", name="battery_pct"),
        CheckConstraint("bucket <= ts", name="bucket_holds_ts"),
        {"postgresql_partition_by": "RANGE (bucket)"},
    )


class DeviceLastStatus(_Report, Base):
    """One row per device for O(1) reads: its newest report, and when the server last heard from it."""

    __tablename__ = "device_last_status"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    last_ts: Mapped[datetime]
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # When the last status was received, and the device's own time of it, to detect a clock that was set back.
    received_at: Mapped[datetime | None]
    device_ts: Mapped[datetime | None]
    # When the phone started, its previous start and model, and when two phones were last seen using one token.
    boot_at: Mapped[datetime | None]
    earlier_boot_at: Mapped[datetime | None]
    earlier_model: Mapped[str | None]
    token_shared_at: Mapped[datetime | None]
    # The SHA-256 of the app inventory; null until the device reports one.
    apps_hash: Mapped[str | None]
    apps_changed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("status", ("ok", "warn", "error")), name="status"),
        CheckConstraint("battery_pct BETWEEN 0 AND 100", name="battery_pct"),
        Index("ix_device_last_status_last_seen_at", "last_seen_at"),
        Index("ix_device_last_status_agent_version", "agent_version"),
        Index("ix_device_last_status_status", "status", postgresql_where=text("status <> 'ok'")),
    )


class _Charted:
    """The minimum, maximum and last value of each charted field."""


for _field in CHARTED:
    for _which in ("min", "max", "last"):
        setattr(_Charted, f"{_field.name}_{_which}", mapped_column(TYPES[sql_type(_field)]))


class DeviceHistory(_Charted, Base):
    """A device's reports of one hour, written when retention removes the reports themselves.

    There is no foreign key: it would lock the row of every device while a partition is summarized, and a heartbeat that
    changes a unique column, such as the FCM token, would have to wait. Rows of devices are never removed.
    """

    __tablename__ = "device_history"

    device_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    reports: Mapped[int] = mapped_column(Integer)
    last_ts: Mapped[datetime]

    __table_args__ = (Index("ix_device_history_hour", "hour"),)
