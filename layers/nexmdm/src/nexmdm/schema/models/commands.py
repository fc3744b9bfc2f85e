"""Commands: dispatches to one device, batches, schedules."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Computed, ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from nexmdm.schema.models.base import Base, Json, one_of

DELIVERIES = ("at_most_once", "until_answered")

DISPATCH_STATES = ("accepted", "sending", "sent", "failed", "retry_wait", "unknown", "expired", "cancelled")


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
    payload: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))
    secrets: Mapped[Json | None]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("command_batches.request_id"))
    delivery: Mapped[str] = mapped_column(server_default="at_most_once")
    created_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    audit: Mapped[list[Json]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))

    __table_args__ = (
        CheckConstraint(one_of("state", DISPATCH_STATES), name="state"),
        CheckConstraint(one_of("delivery", DELIVERIES), name="delivery"),
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


class CommandBatch(Base):
    """A bulk command; its dispatches are `request_id:device_id`."""

    __tablename__ = "command_batches"

    request_id: Mapped[str] = mapped_column(primary_key=True)
    payload_hash: Mapped[str]
    selector: Mapped[Json]
    device_count: Mapped[int]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Schedule(Base):
    """A recurring or one-time command; the sweep starts it at `next_run_at`."""

    __tablename__ = "schedules"

    schedule_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    cron: Mapped[str | None]
    at: Mapped[datetime | None]
    timezone: Mapped[str]
    filter: Mapped[Json]
    group_name: Mapped[str | None] = mapped_column(
        ForeignKey("device_groups.name"), Computed("filter ->> 'group'", persisted=True)
    )
    action: Mapped[str]
    params: Mapped[Json]
    ttl_seconds: Mapped[int]
    delivery: Mapped[str]
    enabled: Mapped[bool]
    next_run_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("num_nonnulls(cron, at) = 1", name="cron_or_at"),
        CheckConstraint(one_of("delivery", DELIVERIES), name="delivery"),
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
        CheckConstraint(one_of("status", ("started", "missed", "empty")), name="status"),
        CheckConstraint("(status = 'started') = (request_id IS NOT NULL)", name="started_has_a_command"),
        Index("ix_schedule_runs_created_at", "created_at"),
    )
