"""Validate the constraints on labels

Revision ID: 1f19a0000002
Revises: 1f19a0000001
"""

from alembic import op

revision = "1f19a0000002"
down_revision = "1f19a0000001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("devices", "enrollment_tokens"):
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_labels")


def downgrade() -> None:
    """A validated constraint stays validated."""
