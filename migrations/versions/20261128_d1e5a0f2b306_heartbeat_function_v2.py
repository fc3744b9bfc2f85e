"""The heartbeat's statement, second version

Revision ID: d1e5a0f2b306
Revises: d1e5a0f2b305

New fields, the rule of the newest token, clocks that were set back, shared tokens, the app inventory, and pending
commands by their end of life. The first version stays for code that still runs, and goes a release later.
"""

from pathlib import Path

from alembic import op

from migrations import grants

revision = "d1e5a0f2b306"
down_revision = "d1e5a0f2b305"
branch_labels = None
depends_on = None

FUNCTION = Path(__file__).parents[1] / "sql" / "record_heartbeats_v2.sql"


def upgrade() -> None:
    # No parameters: the function's text may hold percent signs and colons.
    op.get_bind().exec_driver_sql(FUNCTION.read_text())
    grants.execute(op.get_bind(), "record_heartbeats_v2", "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    op.execute("DROP FUNCTION record_heartbeats_v2")
