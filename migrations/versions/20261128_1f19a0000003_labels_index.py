"""An index on the labels of devices, for equality, `in` and existence tests in selectors

Revision ID: 1f19a0000003
Revises: 1f19a0000002
"""

from migrations.concurrently import create_index, drop_index

revision = "1f19a0000003"
down_revision = "1f19a0000002"
branch_labels = None
depends_on = None

NAME, TABLE = "ix_devices_labels", "devices"


def upgrade() -> None:
    create_index(NAME, TABLE, "labels", using="gin")


def downgrade() -> None:
    drop_index(NAME, TABLE)
