"""An index for the unsuccessful commands of one state, newest first

Revision ID: 5eed0a1b0003
Revises: 5eed0a1b0002
"""

from migrations.concurrently import create_index, drop_index

revision = "5eed0a1b0003"
down_revision = "5eed0a1b0002"
branch_labels = None
depends_on = None

STATES = "state IN ('failed', 'unknown', 'expired', 'cancelled')"


def upgrade() -> None:
    create_index("ix_fcm_dispatches_unsent", "fcm_dispatches", "state, created_at, request_id", where=STATES)


def downgrade() -> None:
    drop_index("ix_fcm_dispatches_unsent", "fcm_dispatches")
