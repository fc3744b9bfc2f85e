"""Builds, their signers, installations and downloads."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from nexmdm.schema.models.base import Base, Json, one_of

BUILD_STATES = ("declared", "awaiting_signer", "published", "refused", "withdrawn", "adopted")

INSTALLATION_STATES = ("pending", "downloading", "installing", "completed", "failed", "unknown")


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
    audit: Mapped[list[Json]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    rollout_filter: Mapped[Json | None]
    min_sdk: Mapped[int | None]
    target_sdk: Mapped[int | None]
    shared_user_id: Mapped[str | None]
    plan: Mapped[Json | None]
    plan_stage: Mapped[int | None]
    plan_stage_at: Mapped[datetime | None]
    plan_ended_at: Mapped[datetime | None]
    plan_end: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(one_of("state", BUILD_STATES), name="state"),
        CheckConstraint(
            "state = 'adopted' OR num_nulls(sha256, build_type, source, signer_fingerprint) = 0",
            name="declared_in_full",
        ),
        CheckConstraint("state = 'adopted' OR build_type IN ('debug', 'release')", name="build_type"),
        CheckConstraint(one_of("source", ("manual", "ci")), name="source"),
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
    """A certificate (SHA-256, hex) that may sign a package: pinned by an operator, directly or by a promotion."""

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
        CheckConstraint(one_of("status", INSTALLATION_STATES), name="status"),
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
        CheckConstraint(one_of("source", ("enrollment", "manual", "ci")), name="source"),
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
