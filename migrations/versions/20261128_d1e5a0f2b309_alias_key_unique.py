"""The keys of aliases are unique among enrolled devices

Revision ID: d1e5a0f2b309
Revises: d1e5a0f2b308
"""

from migrations.concurrently import create_index, drop_index

revision = "d1e5a0f2b309"
down_revision = "d1e5a0f2b308"
branch_labels = None
depends_on = None

NAME, TABLE = "uq_devices_live_alias_key", "devices"


def upgrade() -> None:
    create_index(NAME, TABLE, "alias_key", unique=True, where="deleted_at IS NULL")


def downgrade() -> None:
    drop_index(NAME, TABLE)
