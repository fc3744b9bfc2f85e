"""Alerts know under which rule and where they were notified

Revision ID: 5eed0a1b0004
Revises: 5eed0a1b0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "5eed0a1b0004"
down_revision = "5eed0a1b0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("device_alerts", sa.Column("notified_rule", sa.Text))
    op.add_column("device_alerts", sa.Column("notified_routes", ARRAY(sa.Text)))


def downgrade() -> None:
    op.drop_column("device_alerts", "notified_routes")
    op.drop_column("device_alerts", "notified_rule")
