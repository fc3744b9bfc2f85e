"""An FCM registration token is unique among the devices

Revision ID: d1e5a0f2b305
Revises: d1e5a0f2b304

Partial, although NULLs do not collide: PostgreSQL takes the columns of a whole unique index for a key that others may
refer to. A new token would lock the device against its own heartbeats, and two reports that bring one would deadlock.
"""

from migrations.concurrently import create_index, drop_index

revision = "d1e5a0f2b305"
down_revision = "d1e5a0f2b304"
branch_labels = None
depends_on = None

NAME, TABLE = "uq_devices_fcm_token", "devices"


def upgrade() -> None:
    create_index(NAME, TABLE, "fcm_token", unique=True, where="fcm_token IS NOT NULL")


def downgrade() -> None:
    drop_index(NAME, TABLE)
