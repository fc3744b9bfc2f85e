"""Which version of a package a device reports, compared with a build

Revision ID: 15b11d000006
Revises: 9d3f5a7c2b11
"""

from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "15b11d000006"
down_revision = "9d3f5a7c2b11"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(frozen("reported_version_v1"))
    grants.execute(op.get_bind(), "reported_version_v1", "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    op.execute("DROP FUNCTION reported_version_v1")
