"""One SQL function completes a command with the device's answer

Revision ID: c0a1d5e7b204
Revises: c0a1d5e7b203
"""

from alembic import op

from migrations.sql import frozen

revision = "c0a1d5e7b204"
down_revision = "c0a1d5e7b203"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Executed without parameters, because the function's text may contain percent signs and colons.
    op.execute(frozen("complete_command_v1"))


def downgrade() -> None:
    op.execute("DROP FUNCTION complete_command_v1")
