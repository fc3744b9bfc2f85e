"""The operators' event log."""

from datetime import datetime

from sqlalchemy import BigInteger, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from nexmdm.schema.models.base import Base, Json


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
    before: Mapped[Json | None]
    after: Mapped[Json | None]

    __table_args__ = (
        *(
            Index(f"ix_operator_events_{name}", name, "event_id", postgresql_ops={name: "text_pattern_ops"})
            for name in ("actor", "action", "object")
        ),
        Index("ix_operator_events_at", "at"),
    )
