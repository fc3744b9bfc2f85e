"""What a device says of a command: completed_at, result, result_message

Revision ID: c73b10a6beaa
Revises: a43a2b52588a
"""

import sqlalchemy as sa
from alembic import op

revision = "c73b10a6beaa"
down_revision = "a43a2b52588a"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A database of the old server may have them under an earlier stamp.
    op.add_column("fcm_dispatches", sa.Column("completed_at", sa.TIMESTAMP(timezone=True)), if_not_exists=True)
    op.add_column("fcm_dispatches", sa.Column("result", sa.Text), if_not_exists=True)
    op.add_column("fcm_dispatches", sa.Column("result_message", sa.Text), if_not_exists=True)


def downgrade() -> None:
    for name in ("result_message", "result", "completed_at"):
        op.drop_column("fcm_dispatches", name)
