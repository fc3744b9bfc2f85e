"""The schema as SQLAlchemy 2 models. Every state is a CHECK, every guarantee a constraint, every constraint named.

Migrations build it (`migrations/versions`), `alembic check` and `nexmdm.schema` compare it. The verb modules run their
own SQL and do not import this module: SQLAlchemy's ORM adds 345 ms to a cold start, psycopg2 alone 30 ms.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB, TIMESTAMP
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nexmdm.devices.fields import CHARTED, HISTORY, OF_DEVICE, sql_type

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

BUILD_STATES = ("declared", "awaiting_signer", "published", "refused", "withdrawn", "adopted")
INSTALLATION_STATES = ("pending", "downloading", "installing", "completed", "failed", "unknown")
DELIVERIES = ("at_most_once", "until_answered")
DISPATCH_STATES = ("accepted", "sending", "sent", "failed", "retry_wait", "unknown", "expired", "cancelled")
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


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy wants it plain
        str: Text(),
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB(),
        float: DOUBLE_PRECISION(),
        list[str]: ARRAY(Text()),
    }


# At most 32 labels; keys like `site`, values strings of at most 200 characters.
LABEL_LIMITS = (
    "jsonb_typeof(labels) = 'object'"
    " AND jsonb_array_length(jsonb_path_query_array(labels, 'strict $.keyvalue()', '{}', true)) <= 32"
    ' AND NOT labels @? \'strict $.keyvalue() ? (!(@.key like_regex "^[a-z][a-z0-9_.-]{0,31}$")'
    ' || @.value.type() != "string" || !(@.value like_regex "^.{0,200}$" flag "s"))\''
)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


_TYPES = {
    "text": Text,
    "integer": Integer,
    "bigint": BigInteger,
    "double precision": DOUBLE_PRECISION,
    "boolean": Boolean,
}


class _Described:
    """Columns for the fields that describe the device itself."""


for _field in OF_DEVICE:
    setattr(_Described, _field.name, mapped_column(_TYPES[sql_type(_field)]))


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
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
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
    filter: Mapped[dict[str, Any]]
    monitored_package: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_by: Mapped[str]

    __table_args__ = (
        CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'", name="name"),
        CheckConstraint("jsonb_typeof(filter) = 'object' AND NOT filter ? 'group'", name="filter"),
    )


class EnrollmentToken(Base):
    """A token that allows a device to register (scope register) or a plain URL to download (scope apk_download)."""

    __tablename__ = "enrollment_tokens"

    token_id: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str]
    token_hash: Mapped[str]
    scope: Mapped[str] = mapped_column(server_default="register")
    issued_by: Mapped[str | None]
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    uses_allowed: Mapped[int] = mapped_column(server_default="1")
    uses_consumed: Mapped[int] = mapped_column(server_default="0")
    last_used_at: Mapped[datetime | None]
    note: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="active")
    device_id: Mapped[str | None]
    used_at: Mapped[datetime | None]
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))

    __table_args__ = (
        CheckConstraint(LABEL_LIMITS, name="labels"),
        UniqueConstraint("token_hash", name="uq_enrollment_token_hash"),
        CheckConstraint(_one_of("scope", ("register", "apk_download")), name="scope"),
        CheckConstraint(_one_of("status", ("active", "exhausted", "revoked")), name="status"),
        CheckConstraint("uses_consumed BETWEEN 0 AND uses_allowed", name="uses"),
        Index("idx_enrollment_issued_by", "issued_by", "issued_at"),
        Index("ix_enrollment_tokens_alias", "alias"),
        Index("ix_enrollment_tokens_issued_at", "issued_at", "token_id"),
    )


class RegistrationRefusal(Base):
    """How many registrations from an IP address were rejected in its current minute; see `enrollment.rate_limit`."""

    __tablename__ = "registration_refusals"

    source: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    refused: Mapped[int]

    __table_args__ = (CheckConstraint("refused > 0", name="refused"),)


class ApkVersion(Base):
    """A build: declared, verified at completion, promoted to current, rolled out in stages.

    `min_sdk` is null for builds published before it was recorded. `plan` is that of an automatic rollout. `adopted`
    builds come from an old server's database; their files are not in the bucket. `file_path` is the object's key,
    `object_version` its verified version. `rollout_completed` and `rollout_failed` count finished
    installations since the promotion or the last resume.
    """

    __tablename__ = "apk_versions"

    id: Mapped[int] = mapped_column(primary_key=True)
    version_name: Mapped[str]
    version_code: Mapped[int]
    file_path: Mapped[str]
    file_size: Mapped[int] = mapped_column(BigInteger)
    uploaded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    uploaded_by: Mapped[str | None]
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    package_name: Mapped[str] = mapped_column(server_default="com.example.app")
    notes: Mapped[str | None]
    build_type: Mapped[str | None]
    ci_run_id: Mapped[str | None]
    git_sha: Mapped[str | None]
    signer_fingerprint: Mapped[str | None]
    storage_url: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="declared")
    sha256: Mapped[str | None]
    source: Mapped[str | None]
    object_version: Mapped[str | None]
    published_at: Mapped[datetime | None]
    refusal: Mapped[str | None]
    is_current: Mapped[bool] = mapped_column(server_default=text("false"))
    replaces_id: Mapped[int | None] = mapped_column(ForeignKey("apk_versions.id"))
    staged_rollout_percent: Mapped[int] = mapped_column(server_default="100")
    wifi_only: Mapped[bool] = mapped_column(server_default=text("true"))
    must_install: Mapped[bool] = mapped_column(server_default=text("false"))
    promoted_at: Mapped[datetime | None]
    promoted_by: Mapped[str | None]
    paused_at: Mapped[datetime | None]
    paused_reason: Mapped[str | None]
    rollout_completed: Mapped[int] = mapped_column(server_default="0")
    rollout_failed: Mapped[int] = mapped_column(server_default="0")
    downloads_issued: Mapped[int] = mapped_column(BigInteger, server_default="0")
    audit: Mapped[dict[str, Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    rollout_filter: Mapped[dict[str, Any] | None]
    min_sdk: Mapped[int | None]
    target_sdk: Mapped[int | None]
    shared_user_id: Mapped[str | None]
    plan: Mapped[dict[str, Any] | None]
    plan_stage: Mapped[int | None]
    plan_stage_at: Mapped[datetime | None]
    plan_ended_at: Mapped[datetime | None]
    plan_end: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(_one_of("state", BUILD_STATES), name="state"),
        CheckConstraint(
            "state = 'adopted' OR num_nulls(sha256, build_type, source, signer_fingerprint) = 0",
            name="declared_in_full",
        ),
        CheckConstraint("state = 'adopted' OR build_type IN ('debug', 'release')", name="build_type"),
        CheckConstraint(_one_of("source", ("manual", "ci")), name="source"),
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        CheckConstraint(
            "(state IN ('awaiting_signer', 'published')) = (object_version IS NOT NULL)", name="published_is_pinned"
        ),
        CheckConstraint("(state = 'refused') = (refusal IS NOT NULL)", name="refused_says_why"),
        CheckConstraint("NOT is_current OR state = 'published'", name="current_is_published"),
        CheckConstraint("staged_rollout_percent BETWEEN 0 AND 100", name="staged_rollout_percent"),
        CheckConstraint("(paused_at IS NULL) = (paused_reason IS NULL)", name="paused_says_why"),
        CheckConstraint("num_nulls(plan, plan_stage, plan_stage_at) IN (0, 3)", name="plan_whole"),
        CheckConstraint("(plan_ended_at IS NULL) = (plan_end IS NULL)", name="plan_end_says_why"),
        Index("idx_apk_build_type", "version_code", "build_type"),
        Index("idx_apk_version_lookup", "package_name", "version_code"),
        # One checksum per package, version code and type; a refused or withdrawn build does not count.
        Index(
            "uq_apk_versions_live",
            "package_name",
            "version_code",
            "build_type",
            unique=True,
            postgresql_where=text("state IN ('declared', 'awaiting_signer', 'published')"),
        ),
        Index(
            "uq_apk_versions_current", "package_name", "build_type", unique=True, postgresql_where=text("is_current")
        ),
    )


class ApkSigner(Base):
    """A certificate (SHA-256, hex) that may sign a package: pinned by its first release build, changed explicitly."""

    __tablename__ = "apk_signers"

    package_name: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    pinned_at: Mapped[datetime] = mapped_column(server_default=func.now())
    pinned_by: Mapped[str]

    __table_args__ = (CheckConstraint("fingerprint ~ '^[0-9a-f]{64}$'", name="fingerprint"),)


class ApkInstallation(Base):
    """One installation of a build on a device, as reported by the device; `request_id` is that of the command."""

    __tablename__ = "apk_installations"

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    apk_version_id: Mapped[int] = mapped_column(ForeignKey("apk_versions.id"))
    status: Mapped[str]
    initiated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]
    download_progress: Mapped[int | None]
    error_message: Mapped[str | None]
    initiated_by: Mapped[str | None]
    request_id: Mapped[str | None]
    installing_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_one_of("status", INSTALLATION_STATES), name="status"),
        CheckConstraint("download_progress BETWEEN 0 AND 100", name="download_progress"),
        Index("idx_installation_status", "device_id", "status"),
        Index("idx_installation_time", "initiated_at"),
        Index("idx_installation_version_status", "apk_version_id", "status"),
        Index("ix_apk_installations_of_build", "apk_version_id", "id"),
        Index(
            "ix_apk_installations_open",
            "initiated_at",
            postgresql_where=text("status IN ('pending', 'downloading', 'installing', 'unknown')"),
        ),
    )


class Schedule(Base):
    """A recurring or one-time command; the sweep starts it at `next_run_at`."""

    __tablename__ = "schedules"

    schedule_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    cron: Mapped[str | None]
    at: Mapped[datetime | None]
    timezone: Mapped[str]
    filter: Mapped[dict[str, Any]]
    group_name: Mapped[str | None] = mapped_column(
        ForeignKey("device_groups.name"), Computed("filter ->> 'group'", persisted=True)
    )
    action: Mapped[str]
    params: Mapped[dict[str, Any]]
    ttl_seconds: Mapped[int]
    delivery: Mapped[str]
    enabled: Mapped[bool]
    next_run_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("num_nonnulls(cron, at) = 1", name="cron_or_at"),
        CheckConstraint(_one_of("delivery", DELIVERIES), name="delivery"),
        CheckConstraint("ttl_seconds BETWEEN 1 AND 86400", name="ttl_seconds"),
        CheckConstraint("enabled OR next_run_at IS NULL", name="disabled_has_no_next_run"),
        Index("ix_schedules_next_run_at", "next_run_at", postgresql_where=text("enabled")),
    )


class ScheduleRun(Base):
    """The outcome of one instant of a schedule. Its primary key ensures that a run starts once."""

    __tablename__ = "schedule_runs"

    schedule_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("schedules.schedule_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    scheduled_for: Mapped[datetime] = mapped_column(primary_key=True)
    status: Mapped[str]
    request_id: Mapped[str | None]
    key: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("schedule_id", "key"),
        CheckConstraint(_one_of("status", ("started", "missed", "empty")), name="status"),
        CheckConstraint("(status = 'started') = (request_id IS NOT NULL)", name="started_has_a_command"),
        Index("ix_schedule_runs_created_at", "created_at"),
    )


class CommandBatch(Base):
    """A bulk command; its dispatches are `request_id:device_id`."""

    __tablename__ = "command_batches"

    request_id: Mapped[str] = mapped_column(primary_key=True)
    payload_hash: Mapped[str]
    selector: Mapped[dict[str, Any]]
    device_count: Mapped[int]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class FcmDispatch(Base):
    """One command for one device: the idempotency key, the state machine and the result in one row."""

    __tablename__ = "fcm_dispatches"

    request_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    action: Mapped[str]
    payload_hash: Mapped[str | None]
    sent_at: Mapped[datetime] = mapped_column(server_default=func.now())
    latency_ms: Mapped[int | None]
    fcm_message_id: Mapped[str | None]
    http_code: Mapped[int | None]
    fcm_status: Mapped[str] = mapped_column(server_default="pending")
    error_msg: Mapped[str | None]
    response_json: Mapped[str | None]
    retries: Mapped[int] = mapped_column(server_default="0")
    completed_at: Mapped[datetime | None]
    result: Mapped[str | None]
    result_message: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="accepted")
    fence: Mapped[int] = mapped_column(server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    refused: Mapped[int | None]  # null: accepted by a release that did not count them
    lease_until: Mapped[datetime | None]
    next_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]
    fcm_expires_at: Mapped[datetime | None]
    payload: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    secrets: Mapped[dict[str, Any] | None]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("command_batches.request_id"))
    delivery: Mapped[str] = mapped_column(server_default="at_most_once")
    created_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    audit: Mapped[dict[str, Any]] = mapped_column(server_default=text("'[]'::jsonb"))

    __table_args__ = (
        CheckConstraint(_one_of("state", DISPATCH_STATES), name="state"),
        CheckConstraint(_one_of("delivery", DELIVERIES), name="delivery"),
        CheckConstraint("(state = 'sending') = (lease_until IS NOT NULL)", name="lease_while_sending"),
        CheckConstraint("state <> 'sending' OR fence > 0", name="fence_while_sending"),
        CheckConstraint("refused BETWEEN 0 AND attempts", name="refused"),
        CheckConstraint("(state = 'retry_wait') = (next_at IS NOT NULL)", name="next_while_waiting"),
        CheckConstraint("state <> 'accepted' OR completed_at IS NULL", name="accepted_is_not_completed"),
        CheckConstraint(
            # '{}' means that there were secrets and they were wiped, so the row cannot be sent again.
            "secrets IS NULL OR secrets = '{}'::jsonb"
            " OR (completed_at IS NULL AND (state IN ('accepted', 'sending', 'retry_wait', 'unknown')"
            " OR (delivery = 'until_answered' AND state = 'sent')))",
            name="secrets_only_while_sendable",
        ),
        CheckConstraint("(batch_id IS NULL) OR request_id = batch_id || ':' || device_id", name="batch_member"),
        Index("idx_fcm_device_sent", "device_id", "sent_at"),
        Index("idx_fcm_action_sent", "action", "sent_at"),
        Index("ix_fcm_dispatches_sent_at", "sent_at"),
        Index("ix_fcm_dispatches_batch_id", "batch_id", "state", postgresql_where=text("batch_id IS NOT NULL")),
        Index("ix_fcm_dispatches_created_at", "created_at", "request_id"),
        # For lists by state. `sent` is not included because most rows are sent, so any page of all rows has some.
        Index(
            "ix_fcm_dispatches_unsent",
            "state",
            "created_at",
            "request_id",
            postgresql_where=text("state IN ('failed', 'unknown', 'expired', 'cancelled')"),
        ),
        # Only rows that the sweep looks for, so that it stays small regardless of the number of settled rows.
        Index(
            "ix_fcm_dispatches_open",
            text("coalesce(next_at, lease_until, created_at)"),
            postgresql_where=text("state IN ('accepted', 'retry_wait', 'sending')"),
        ),
        # The rows of pending_commands in the response to a heartbeat.
        Index(
            "ix_fcm_dispatches_pending",
            "device_id",
            "expires_at",
            postgresql_where=text("state IN ('accepted', 'retry_wait', 'unknown') AND completed_at IS NULL"),
        ),
        Index(
            "ix_fcm_dispatches_until_answered",
            "device_id",
            "expires_at",
            postgresql_where=text("delivery = 'until_answered' AND completed_at IS NULL"),
        ),
    )


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
    setattr(_Report, _field.name, mapped_column(_TYPES[sql_type(_field)], server_default=_default))


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
        CheckConstraint(_one_of("status", ("ok", "warn", "error")), name="status"),
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
        CheckConstraint(_one_of("status", ("ok", "warn", "error")), name="status"),
        CheckConstraint("battery_pct BETWEEN 0 AND 100", name="battery_pct"),
        Index("ix_device_last_status_last_seen_at", "last_seen_at"),
        Index("ix_device_last_status_agent_version", "agent_version"),
        Index("ix_device_last_status_status", "status", postgresql_where=text("status <> 'ok'")),
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


class ApkDownloadEvent(Base):
    """One issued download URL, committed before the URL is returned.

    `adopted` rows come from an old server's database, which did not always record the caller.
    """

    __tablename__ = "apk_download_events"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    build_id: Mapped[int] = mapped_column(Integer, ForeignKey("apk_versions.id"))
    source: Mapped[str]
    token_id: Mapped[str | None] = mapped_column(ForeignKey("enrollment_tokens.token_id"))
    admin_user: Mapped[str | None]
    ip: Mapped[str | None]
    ts: Mapped[datetime] = mapped_column(server_default=func.now())
    device_id: Mapped[str | None] = mapped_column(ForeignKey("devices.id"))
    adopted: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        CheckConstraint(_one_of("source", ("enrollment", "manual", "ci")), name="source"),
        CheckConstraint("adopted OR num_nonnulls(token_id, device_id, admin_user) = 1", name="one_caller"),
        Index("idx_apk_download_build_ts", "build_id", "ts"),
        Index("idx_apk_download_token_ts", "token_id", "ts"),
        Index("ix_apk_download_events_ts", "ts"),
    )


class ApkDownloadRate(Base):
    """The instants at which a device got URLs of a build within the last hour."""

    __tablename__ = "apk_download_rates"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    build_id: Mapped[int] = mapped_column(ForeignKey("apk_versions.id"), primary_key=True, autoincrement=False)
    issued: Mapped[list[datetime]] = mapped_column(ARRAY(TIMESTAMP(timezone=True)))
    last_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("cardinality(issued) BETWEEN 1 AND 20", name="issued"),
        Index("ix_apk_download_rates_last_at", "last_at"),
    )


class DeviceAlert(Base):
    """A problem of a device, from when the watch found it until it has been absent for the cool-down.

    At most one alert is open per device and condition; it is pending until `opened_at`. `notice` is the waiting
    notification; the run that sends it holds `claim_id` until `lease_until`. `clear_since`: when the condition ended,
    which may be temporary. `notified_at`: when the last notification was published.
    """

    __tablename__ = "device_alerts"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    condition: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
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

    __table_args__ = (
        CheckConstraint(_one_of("condition", ALERT_CONDITIONS), name="condition"),
        CheckConstraint(_one_of("severity", SEVERITIES), name="severity"),
        CheckConstraint("(acked_at IS NULL) = (acked_by IS NULL)", name="acked_by"),
        CheckConstraint(_one_of("notice", ("opened", "recovered")), name="notice"),
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


class OperatorEvent(Base):
    """A change by an operator or the system. Rows are only added, and removed after their retention."""

    __tablename__ = "operator_events"

    event_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    actor: Mapped[str]
    session: Mapped[str | None]
    ip: Mapped[str | None]
    request_id: Mapped[str | None]
    action: Mapped[str]
    object: Mapped[str]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]

    __table_args__ = (
        *(
            Index(f"ix_operator_events_{name}", name, "event_id", postgresql_ops={name: "text_pattern_ops"})
            for name in ("actor", "action", "object")
        ),
        Index("ix_operator_events_at", "at"),
    )


class AlertRule(Base):
    """A condition, the devices that it applies to, and where notifications are sent."""

    __tablename__ = "alert_rules"

    name: Mapped[str] = mapped_column(primary_key=True)
    condition: Mapped[str]
    filter: Mapped[dict[str, Any] | None]
    threshold: Mapped[float | None]
    for_seconds: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    severity: Mapped[str] = mapped_column(server_default=text("'warning'"))
    routes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    priority: Mapped[int] = mapped_column(Integer, server_default=text("100"))
    quiet_hours: Mapped[dict[str, Any] | None]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint(_one_of("condition", ALERT_CONDITIONS), name="condition"),
        CheckConstraint(_one_of("severity", SEVERITIES), name="severity"),
        CheckConstraint("for_seconds BETWEEN 0 AND 604800", name="for_seconds"),
    )


class AlertMute(Base):
    """Devices whose alerts send no notifications until a given time."""

    __tablename__ = "alert_mutes"

    mute_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    filter: Mapped[dict[str, Any]]
    condition: Mapped[str | None]
    until: Mapped[datetime]
    reason: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))

    __table_args__ = (
        CheckConstraint(f"condition IS NULL OR {_one_of('condition', ALERT_CONDITIONS)}", name="condition"),
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


class _Charted:
    """The minimum, maximum and last value of each charted field."""


for _field in CHARTED:
    for _which in ("min", "max", "last"):
        setattr(_Charted, f"{_field.name}_{_which}", mapped_column(_TYPES[sql_type(_field)]))


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
