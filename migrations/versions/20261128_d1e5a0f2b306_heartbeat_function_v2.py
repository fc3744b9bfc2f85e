"""The SQL function for heartbeats, second version

Revision ID: d1e5a0f2b306
Revises: d1e5a0f2b305

New fields, the rule of the newest token, clocks that were set back, shared tokens, the app inventory, and pending
commands sorted by expiry. The first version is kept for the previous release, and removed one release later.
"""

from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "d1e5a0f2b306"
down_revision = "d1e5a0f2b305"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(frozen("record_heartbeats_v2"))
    grants.execute(op.get_bind(), "record_heartbeats_v2", "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    op.execute("DROP FUNCTION record_heartbeats_v2")
