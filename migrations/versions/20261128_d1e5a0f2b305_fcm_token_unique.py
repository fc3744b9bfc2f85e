"""An FCM registration token is unique among the devices

Revision ID: d1e5a0f2b305
Revises: d1e5a0f2b304

The index is partial, although NULLs do not collide: PostgreSQL treats the columns of a full unique index as a key that
foreign keys may reference. An update of the token would therefore lock the device's row against its own heartbeats, and
two reports with a new token would deadlock.
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
