"""Alerts about devices: at most one open per device and condition, each change of it told once

Revision ID: a9d4e7b25c10
Revises: a91d5e0c7b34
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "a9d4e7b25c10"
down_revision = "a91d5e0c7b34"
branch_labels = None
depends_on = None

INSTANT = sa.TIMESTAMP(timezone=True)

CHECKS = {
    "condition": "condition IN ('silent', 'low_battery', 'unity_down', 'queue_growing', 'agent_outdated')",
    "notice": "notice IN ('opened', 'recovered')",
    "notice_fits": "notice IS NULL OR (notice = 'recovered') = (recovered_at IS NOT NULL)",
    "lease_while_claimed": "(claim_id IS NULL) = (lease_until IS NULL)",
    "claimed_to_be_told": "claim_id IS NULL OR notice IS NOT NULL",
}


def upgrade() -> None:
    op.create_table(
        "device_alerts",
        sa.Column("id", sa.BigInteger, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.Text, nullable=False),
        sa.Column("condition", sa.Text, nullable=False),
        sa.Column("since", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("detail", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("clear_since", INSTANT),
        sa.Column("recovered_at", INSTANT),
        sa.Column("notice", sa.Text),
        sa.Column("claim_id", sa.Text),
        sa.Column("lease_until", INSTANT),
        sa.Column("notified_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_device_alerts"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_alerts_device_id"),
        *(sa.CheckConstraint(condition, name=name) for name, condition in CHECKS.items()),
    )
    op.create_index(
        "uq_device_alerts_open",
        "device_alerts",
        ["device_id", "condition"],
        unique=True,
        postgresql_where=sa.text("recovered_at IS NULL"),
    )
    op.create_index("ix_device_alerts_notice", "device_alerts", ["id"], postgresql_where=sa.text("notice IS NOT NULL"))
    op.create_index("ix_device_alerts_device_id", "device_alerts", ["device_id", "id"])


def downgrade() -> None:
    op.drop_table("device_alerts")
