"""Validate the constraints on a command's delivery and secrets

Revision ID: c0a1d5e7b202
Revises: c0a1d5e7b201
"""

from alembic import op

revision = "c0a1d5e7b202"
down_revision = "c0a1d5e7b201"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("delivery", "secrets_only_while_sendable"):
        op.execute(f"ALTER TABLE fcm_dispatches VALIDATE CONSTRAINT ck_fcm_dispatches_{name}")


def downgrade() -> None:
    """A validated constraint stays validated."""
