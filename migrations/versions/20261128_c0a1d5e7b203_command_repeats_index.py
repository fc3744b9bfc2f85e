"""An index on the commands that are repeated until the device answers

Revision ID: c0a1d5e7b203
Revises: c0a1d5e7b202

It serves the sweep and the heartbeat's list of pending commands, and has entries only for such commands.
"""

from migrations.concurrently import create_index, drop_index

revision = "c0a1d5e7b203"
down_revision = "c0a1d5e7b202"
branch_labels = None
depends_on = None

NAME, TABLE = "ix_fcm_dispatches_until_answered", "fcm_dispatches"


def upgrade() -> None:
    create_index(NAME, TABLE, "device_id, expires_at", where="delivery = 'until_answered' AND completed_at IS NULL")


def downgrade() -> None:
    drop_index(NAME, TABLE)
