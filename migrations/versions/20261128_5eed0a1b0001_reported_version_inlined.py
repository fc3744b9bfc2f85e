"""The version of a package that a device reports, in a form that the planner can join

Revision ID: 5eed0a1b0001
Revises: 1f19a0000008
"""

from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "5eed0a1b0001"
down_revision = "1f19a0000008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(frozen("reported_version_v2"))
    grants.execute(op.get_bind(), "reported_version_v2", "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    op.execute("DROP FUNCTION reported_version_v2")
