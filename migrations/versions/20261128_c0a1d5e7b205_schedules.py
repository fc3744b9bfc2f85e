"""Schedules: commands that the sweep sends at set times, and a record of each run

Revision ID: c0a1d5e7b205
Revises: d1e5a0f2b306

The key of a run is its schedule and its instant, so that a run starts only once despite crashes and races.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations import grants
from migrations.sql import frozen

revision = "c0a1d5e7b205"
down_revision = "d1e5a0f2b306"
branch_labels = None
depends_on = None

INSTANT = sa.TIMESTAMP(timezone=True)
GROUP = "filter ->> 'group'"


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("schedule_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("cron", sa.Text),
        sa.Column("at", INSTANT),
        sa.Column("timezone", sa.Text, nullable=False),
        sa.Column("filter", JSONB, nullable=False),
        sa.Column("group_name", sa.Text, sa.Computed(GROUP, persisted=True)),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("params", JSONB, nullable=False),
        sa.Column("ttl_seconds", sa.Integer, nullable=False),
        sa.Column("delivery", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("next_run_at", INSTANT),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("schedule_id", name="pk_schedules"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
        sa.ForeignKeyConstraint(["group_name"], ["device_groups.name"], name="fk_schedules_group_name"),
        sa.CheckConstraint("num_nonnulls(cron, at) = 1", name="cron_or_at"),
        sa.CheckConstraint("delivery IN ('at_most_once', 'until_answered')", name="delivery"),
        sa.CheckConstraint("ttl_seconds BETWEEN 1 AND 86400", name="ttl_seconds"),
        sa.CheckConstraint("enabled OR next_run_at IS NULL", name="disabled_has_no_next_run"),
    )
    op.create_index("ix_schedules_next_run_at", "schedules", ["next_run_at"], postgresql_where=sa.text("enabled"))
    op.create_table(
        "schedule_runs",
        sa.Column("schedule_id", sa.BigInteger, nullable=False),
        sa.Column("scheduled_for", INSTANT, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("schedule_id", "scheduled_for", name="pk_schedule_runs"),
        sa.UniqueConstraint("schedule_id", "key", name="uq_schedule_runs_schedule_id_key"),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.schedule_id"], name="fk_schedule_runs_schedule_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("status IN ('started', 'missed', 'empty')", name="status"),
        sa.CheckConstraint("(status = 'started') = (request_id IS NOT NULL)", name="started_has_a_command"),
    )
    op.create_index("ix_schedule_runs_created_at", "schedule_runs", ["created_at"])
    op.execute(frozen("device_group_uses_v3"))
    grants.grant(op.get_bind(), "schedules", nexmdm_app="SELECT, INSERT, UPDATE, DELETE")
    grants.grant(op.get_bind(), "schedule_runs", nexmdm_app="SELECT, INSERT, UPDATE")


def downgrade() -> None:
    op.execute(frozen("device_group_uses_v1").replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))
    op.drop_table("schedule_runs")
    op.drop_table("schedules")
