"""A build may be offered to the devices of a filter; a view of the uses of groups

Revision ID: 1f19a0000007
Revises: 1f19a0000006

Without a filter, a build is offered to every device, as before.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations import grants

revision = "1f19a0000007"
down_revision = "1f19a0000006"
branch_labels = None
depends_on = None

VIEW = Path(__file__).parents[1] / "sql" / "device_group_uses_v1.sql"


def upgrade() -> None:
    op.add_column("apk_versions", sa.Column("rollout_filter", JSONB))
    op.get_bind().exec_driver_sql(VIEW.read_text())
    grants.grant(op.get_bind(), "device_group_uses", nexmdm_app="SELECT")


def downgrade() -> None:
    op.execute("DROP VIEW device_group_uses")
    op.drop_column("apk_versions", "rollout_filter")
