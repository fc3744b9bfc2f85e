"""Refused registrations are counted for each address

Revision ID: d4e1a7c05b92
Revises: f3b7a9c41d58
"""

import sqlalchemy as sa
from alembic import op

revision = "d4e1a7c05b92"
down_revision = "f3b7a9c41d58"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "registration_refusals",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("since", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("refused", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("source", name="pk_registration_refusals"),
        sa.CheckConstraint("refused > 0", name="refused"),
    )


def downgrade() -> None:
    op.drop_table("registration_refusals")
