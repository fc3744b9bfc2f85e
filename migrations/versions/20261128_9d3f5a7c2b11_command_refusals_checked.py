"""The count of refusals is checked on every row

Revision ID: 9d3f5a7c2b11
Revises: 9d3f5a7c2b10

A revision of its own, so that no writer waits while the table is read.
"""

from alembic import op

revision = "9d3f5a7c2b11"
down_revision = "9d3f5a7c2b10"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE fcm_dispatches VALIDATE CONSTRAINT ck_fcm_dispatches_refused")


def downgrade() -> None:
    """A checked constraint is the same constraint; the revision before drops it with its column."""
