"""Validate the constraint on the count of refusals

Revision ID: 9d3f5a7c2b11
Revises: 9d3f5a7c2b10

This is a separate revision, so that no writer waits while the table is scanned.
"""

from alembic import op

revision = "9d3f5a7c2b11"
down_revision = "9d3f5a7c2b10"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE fcm_dispatches VALIDATE CONSTRAINT ck_fcm_dispatches_refused")


def downgrade() -> None:
    """A validated constraint stays validated; the previous revision drops it with its column."""
