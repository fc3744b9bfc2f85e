"""The security patch level of a device

Revision ID: d1e5a0f2b307
Revises: c0a1d5e7b205

The function for heartbeats gets a new version with this column; the earlier version is kept for the previous release.
"""

import sqlalchemy as sa
from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "d1e5a0f2b307"
down_revision = "c0a1d5e7b205"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("patch_level", sa.Text))
    grants.grant(op.get_bind(), "devices", nexmdm_device="UPDATE (patch_level)")
    op.execute(frozen("record_heartbeats_v3"))
    grants.execute(op.get_bind(), "record_heartbeats_v3", "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    op.execute("DROP FUNCTION record_heartbeats_v3")
    op.drop_column("devices", "patch_level")
