"""A device may have its own monitored app instead of UNITY_PACKAGE

Revision ID: 1f19a0000004
Revises: 1f19a0000003
"""

import sqlalchemy as sa
from alembic import op

revision = "1f19a0000004"
down_revision = "1f19a0000003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("monitored_package", sa.Text))


def downgrade() -> None:
    op.drop_column("devices", "monitored_package")
