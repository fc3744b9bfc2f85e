"""What a device's answer does to its command stands in one SQL function

Revision ID: c0a1d5e7b204
Revises: c0a1d5e7b203
"""

from pathlib import Path

from alembic import op

revision = "c0a1d5e7b204"
down_revision = "c0a1d5e7b203"
branch_labels = None
depends_on = None

FUNCTION = Path(__file__).parents[1] / "sql" / "complete_command_v1.sql"


def upgrade() -> None:
    # No parameters: the function's text may hold percent signs and colons.
    op.get_bind().exec_driver_sql(FUNCTION.read_text())


def downgrade() -> None:
    op.execute("DROP FUNCTION complete_command_v1")
