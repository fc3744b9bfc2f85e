"""An index on hardware ids, to find one that two enrolled devices report

Revision ID: d1e5a0f2b310
Revises: d1e5a0f2b309
"""

from migrations.concurrently import create_index, drop_index

revision = "d1e5a0f2b310"
down_revision = "d1e5a0f2b309"
branch_labels = None
depends_on = None

NAME, TABLE = "ix_devices_hardware_id", "devices"


def upgrade() -> None:
    create_index(NAME, TABLE, "hardware_id", where="deleted_at IS NULL AND hardware_id IS NOT NULL")


def downgrade() -> None:
    drop_index(NAME, TABLE)
