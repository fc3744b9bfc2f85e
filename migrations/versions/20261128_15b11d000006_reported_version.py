"""The version of a package that a device reports, compared with a build

Revision ID: 15b11d000006
Revises: d1e5a0f2b310
"""

from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "15b11d000006"
down_revision = "d1e5a0f2b310"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(frozen("reported_version_v1"))
    grants.execute(op.get_bind(), "reported_version_v1", "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    op.execute("DROP FUNCTION reported_version_v1")
