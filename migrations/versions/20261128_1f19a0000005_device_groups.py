"""Groups: named filters

Revision ID: 1f19a0000005
Revises: 1f19a0000004

`filter` is the stored form of nexmdm.devices.filters. A group's filter cannot name another group.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations import grants

INSTANT = sa.TIMESTAMP(timezone=True)

revision = "1f19a0000005"
down_revision = "1f19a0000004"
branch_labels = None
depends_on = None

NAMED = "name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'"


def upgrade() -> None:
    op.create_table(
        "device_groups",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("filter", JSONB, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_device_groups"),
        sa.CheckConstraint(NAMED, name="name"),
        sa.CheckConstraint("jsonb_typeof(filter) = 'object' AND NOT filter ? 'group'", name="filter"),
    )
    grants.grant(op.get_bind(), "device_groups", nexmdm_app="SELECT, INSERT, UPDATE, DELETE", nexmdm_device="SELECT")


def downgrade() -> None:
    op.drop_table("device_groups")
