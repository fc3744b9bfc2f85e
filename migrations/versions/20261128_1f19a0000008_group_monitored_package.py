"""A group may set the monitored app of its devices; a function returns the monitored app of a device

Revision ID: 1f19a0000008
Revises: b0f5e0000001
"""

import sqlalchemy as sa
from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "1f19a0000008"
down_revision = "b0f5e0000001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("device_groups", sa.Column("monitored_package", sa.Text))
    op.execute(frozen("monitored_package_v1"))
    # Used by the watch, the sweep and operators' functions, not by the functions for devices.
    grants.execute(op.get_bind(), "monitored_package_v1", "nexmdm_app")


def downgrade() -> None:
    op.execute("DROP FUNCTION monitored_package_v1(text, text, text, double precision)")
    op.drop_column("device_groups", "monitored_package")
