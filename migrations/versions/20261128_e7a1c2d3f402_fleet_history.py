"""Hourly values of the whole fleet and of each group

Revision ID: e7a1c2d3f402
Revises: e7a1c2d3f401
"""

import sqlalchemy as sa
from alembic import op

from migrations import grants

revision = "e7a1c2d3f402"
down_revision = "e7a1c2d3f401"
branch_labels = None
depends_on = None

COUNTS = ("devices", "online", "silent", "low_battery", "app_down", "heartbeats", "info", "warning", "critical")


def upgrade() -> None:
    op.create_table(
        "fleet_history",
        sa.Column("hour", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("grp", sa.Text, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in COUNTS),
        sa.PrimaryKeyConstraint("hour", "grp", name="pk_fleet_history"),
    )
    grants.grant(op.get_bind(), "fleet_history", nexmdm_app="SELECT, INSERT")


def downgrade() -> None:
    op.drop_table("fleet_history")
