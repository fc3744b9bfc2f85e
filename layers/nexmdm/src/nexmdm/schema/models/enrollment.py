"""Enrollment tokens, and rejected registrations."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from nexmdm.schema.models.base import LABEL_LIMITS, Base, Json, one_of


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
    labels: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))

    __table_args__ = (
        CheckConstraint(LABEL_LIMITS, name="labels"),
        UniqueConstraint("token_hash", name="uq_enrollment_token_hash"),
        CheckConstraint(one_of("scope", ("register", "apk_download")), name="scope"),
        CheckConstraint(one_of("status", ("active", "exhausted", "revoked")), name="status"),
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
