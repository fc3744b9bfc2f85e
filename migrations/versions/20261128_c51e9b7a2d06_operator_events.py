"""The event log of operators' actions, append-only

Revision ID: c51e9b7a2d06
Revises: c4f81b6d2e05
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations import grants
from migrations.sql import frozen

revision = "c51e9b7a2d06"
down_revision = "c4f81b6d2e05"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "operator_events",
        sa.Column("event_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("session", sa.Text),
        sa.Column("ip", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("before", JSONB),
        sa.Column("after", JSONB),
        sa.PrimaryKeyConstraint("event_id", name="pk_operator_events"),
    )
    # text_pattern_ops, because the list uses LIKE with a fixed prefix.
    for column in ("actor", "action", "object"):
        op.execute(f"CREATE INDEX ix_operator_events_{column} ON operator_events ({column} text_pattern_ops, event_id)")
    op.create_index("ix_operator_events_at", "operator_events", ["at"])
    op.execute(frozen("record_system_event_v1"))
    op.execute(frozen("keep_operator_events_v1"))
    op.execute(
        "CREATE TRIGGER keep_operator_events BEFORE UPDATE ON operator_events"
        " FOR EACH STATEMENT EXECUTE FUNCTION keep_operator_events_v1()"
    )
    grants.grant(op.get_bind(), "operator_events", nexmdm_app="SELECT, INSERT")
    grants.execute(op.get_bind(), "record_system_event_v1", "nexmdm_app", "nexmdm_device")
    grants.execute(op.get_bind(), "keep_operator_events_v1")


def downgrade() -> None:
    op.drop_table("operator_events")
    op.execute("DROP FUNCTION keep_operator_events_v1")
    op.execute("DROP FUNCTION record_system_event_v1")
