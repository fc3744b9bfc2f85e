"""Devices, their groups and apps."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from nexmdm.devices.fields import OF_DEVICE, sql_type
from nexmdm.schema.models.base import LABEL_LIMITS, TYPES, Base, Json


class _Described:
    """Columns for the fields that describe the device itself."""


for _field in OF_DEVICE:
    setattr(_Described, _field.name, mapped_column(TYPES[sql_type(_field)]))


class Device(_Described, Base):
    """An enrolled device. Its token is stored only as SHA-256.

    Registering again before the newest token was used adds another token to the earlier ones (`prior_token_id`, before
    it `older_token_ids`); using the newest token retires them.
    """

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(primary_key=True)
    # In byte order, so that one index serves pages and prefixes regardless of the database's collation.
    alias: Mapped[str] = mapped_column(Text(collation="C"))
    # nexmdm.devices.aliases.key; null if two aliases had the same key when keys were introduced.
    alias_key: Mapped[str | None] = mapped_column(Text(collation="C"))
    token_id: Mapped[str | None]
    prior_token_id: Mapped[str | None]
    older_token_ids: Mapped[list[str]] = mapped_column(server_default="{}")
    confirmed_at: Mapped[datetime | None]
    hardware_id: Mapped[str | None]
    enrollment_token_id: Mapped[str | None]
    fcm_token: Mapped[str | None]
    fcm_token_at: Mapped[datetime | None]
    unregistered_fcm_token: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    deleted_by: Mapped[str | None]
    taken_over_at: Mapped[datetime | None]
    labels: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))
    monitored_package: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(LABEL_LIMITS, name="labels"),
        Index("ix_devices_labels", "labels", postgresql_using="gin"),
        UniqueConstraint("token_id"),
        UniqueConstraint("prior_token_id"),
        # An FCM registration token belongs to the last device to report it; a trigger removes it from the other one.
        # Partial, so that a new token does not change a key, which would block the device's own heartbeats.
        Index("uq_devices_fcm_token", "fcm_token", unique=True, postgresql_where=text("fcm_token IS NOT NULL")),
        Index("ix_devices_older_token_ids", "older_token_ids", postgresql_using="gin"),
        CheckConstraint("char_length(alias) BETWEEN 1 AND 200", name="alias_length"),
        CheckConstraint("prior_token_id IS NULL OR confirmed_at IS NULL", name="one_token_once_confirmed"),
        # Unique among devices that are not deleted; a deleted device's alias is free.
        Index("uq_devices_live_alias", "alias", unique=True, postgresql_where=text("deleted_at IS NULL")),
        Index("uq_devices_live_alias_key", "alias_key", unique=True, postgresql_where=text("deleted_at IS NULL")),
        Index(
            "ix_devices_hardware_id",
            "hardware_id",
            postgresql_where=text("deleted_at IS NULL AND hardware_id IS NOT NULL"),
        ),
    )


class DeviceGroup(Base):
    """A named filter; `filter` is the stored form of `nexmdm.devices.filters` and cannot name another group.

    `monitored_package` is the app to monitor on its devices; `monitored_package_v1` determines the app of a device.
    """

    __tablename__ = "device_groups"

    name: Mapped[str] = mapped_column(primary_key=True)
    filter: Mapped[Json]
    monitored_package: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_by: Mapped[str]

    __table_args__ = (
        CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'", name="name"),
        CheckConstraint("jsonb_typeof(filter) = 'object' AND NOT filter ? 'group'", name="filter"),
    )


class DeviceApp(Base):
    """An app that a device reported, installed or not; written when the device's inventory changes."""

    __tablename__ = "device_apps"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    package: Mapped[str] = mapped_column(primary_key=True)
    version_name: Mapped[str | None]
    version_code: Mapped[int | None] = mapped_column(BigInteger)
    installed: Mapped[bool]
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    removed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("removed_at IS NULL OR NOT installed", name="removed_is_not_installed"),
        Index("ix_device_apps_package", "package", "version_code", postgresql_where=text("installed")),
    )
