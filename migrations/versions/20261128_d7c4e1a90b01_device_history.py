"""Hourly values of a device, kept after its reports are removed

Revision ID: d7c4e1a90b01
Revises: 15b11d000006
"""

import sqlalchemy as sa
from alembic import op

from migrations import grants

revision = "d7c4e1a90b01"
down_revision = "15b11d000006"
branch_labels = None
depends_on = None

CHARTED = {
    "battery_pct": sa.Integer,
    "temp_c": sa.Double,
    "signal_dbm": sa.Integer,
    "ram_used_mb": sa.Integer,
}


def upgrade() -> None:
    op.create_table(
        "device_history",
        sa.Column("device_id", sa.Text, nullable=False),
        sa.Column("hour", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("reports", sa.Integer, nullable=False),
        sa.Column("last_ts", sa.TIMESTAMP(timezone=True), nullable=False),
        *(sa.Column(f"{name}_{which}", type_) for name, type_ in CHARTED.items() for which in ("min", "max", "last")),
        sa.PrimaryKeyConstraint("device_id", "hour", name="pk_device_history"),
    )
    op.create_index("ix_device_history_hour", "device_history", ["hour"])
    grants.grant(op.get_bind(), "device_history", nexmdm_app="SELECT")


def downgrade() -> None:
    op.drop_table("device_history")
