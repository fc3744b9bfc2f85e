"""The app inventory of each device

Revision ID: d1e5a0f2b302
Revises: d1e5a0f2b301

Rows are written only if the hash of a device's inventory changed (device_last_status.apps_hash). An app was last seen
at the device's last_ts.
"""

import sqlalchemy as sa
from alembic import op

from migrations import grants

revision = "d1e5a0f2b302"
down_revision = "d1e5a0f2b301"
branch_labels = None
depends_on = None

TABLE, INDEX = "device_apps", "ix_device_apps_package"
INSTANT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("device_id", sa.Text, nullable=False),
        sa.Column("package", sa.Text, nullable=False),
        sa.Column("version_name", sa.Text),
        sa.Column("version_code", sa.BigInteger),
        sa.Column("installed", sa.Boolean, nullable=False),
        sa.Column("first_seen_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("removed_at", INSTANT),
        sa.PrimaryKeyConstraint("device_id", "package", name="pk_device_apps"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_apps_device_id"),
        sa.CheckConstraint("removed_at IS NULL OR NOT installed", name="removed_is_not_installed"),
    )
    op.create_index(INDEX, TABLE, ["package", "version_code"], postgresql_where=sa.text("installed"))
    rights = "SELECT, INSERT, UPDATE"
    grants.grant(op.get_bind(), TABLE, nexmdm_app=rights, nexmdm_device=rights)


def downgrade() -> None:
    op.drop_table(TABLE)
