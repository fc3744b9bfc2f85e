"""The view of groups' uses includes alert rules and mutes

Revision ID: e7a1c2d3f403
Revises: e7a1c2d3f402
"""

from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "e7a1c2d3f403"
down_revision = "e7a1c2d3f402"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(frozen("device_group_uses_v4"))


def downgrade() -> None:
    # Recreate the view without the tables that the downgrades of earlier revisions drop.
    op.execute("DROP VIEW device_group_uses")
    op.execute(frozen("device_group_uses_v3"))
    grants.grant(op.get_bind(), "device_group_uses", nexmdm_app="SELECT")
