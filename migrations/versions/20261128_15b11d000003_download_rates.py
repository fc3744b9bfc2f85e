"""The number of download URLs of a build that a device got within the hour

Revision ID: 15b11d000003
Revises: 15b11d000002

One row per device and build; its lock serializes concurrent downloads.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from migrations import grants

revision = "15b11d000003"
down_revision = "15b11d000002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "apk_download_rates",
        sa.Column("device_id", sa.Text, sa.ForeignKey("devices.id", name="fk_apk_download_rates_device_id")),
        sa.Column("build_id", sa.Integer, sa.ForeignKey("apk_versions.id", name="fk_apk_download_rates_build_id")),
        sa.Column("issued", ARRAY(sa.TIMESTAMP(timezone=True)), nullable=False),
        sa.Column("last_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "build_id", name="pk_apk_download_rates"),
        sa.CheckConstraint("cardinality(issued) BETWEEN 1 AND 20", name=op.f("ck_apk_download_rates_issued")),
    )
    op.create_index("ix_apk_download_rates_last_at", "apk_download_rates", ["last_at"])
    rights = "SELECT, INSERT, UPDATE"
    grants.grant(op.get_bind(), "apk_download_rates", nexmdm_app=rights, nexmdm_device=rights)


def downgrade() -> None:
    op.drop_table("apk_download_rates")
