"""An FCM registration token is unique among the devices

Revision ID: d1e5a0f2b305
Revises: d1e5a0f2b304

Deferrable, so that an update of several devices may pass tokens around.
"""

from alembic import op

from migrations.concurrently import create_index

revision = "d1e5a0f2b305"
down_revision = "d1e5a0f2b304"
branch_labels = None
depends_on = None

NAME, TABLE = "uq_devices_fcm_token", "devices"


def upgrade() -> None:
    create_index(NAME, TABLE, "fcm_token", unique=True)
    op.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT {NAME} UNIQUE USING INDEX {NAME} DEFERRABLE INITIALLY IMMEDIATE")


def downgrade() -> None:
    op.drop_constraint(NAME, TABLE)
