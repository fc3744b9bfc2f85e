"""More facts from a build's manifest

Revision ID: 15b11d000002
Revises: 15b11d000001

min_sdk is null for builds that were published earlier; shared_user_id is null if the manifest sets none.
"""

import sqlalchemy as sa
from alembic import op

revision = "15b11d000002"
down_revision = "15b11d000001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("apk_versions", sa.Column("min_sdk", sa.Integer))
    op.add_column("apk_versions", sa.Column("target_sdk", sa.Integer))
    op.add_column("apk_versions", sa.Column("shared_user_id", sa.Text))


def downgrade() -> None:
    for name in ("shared_user_id", "target_sdk", "min_sdk"):
        op.drop_column("apk_versions", name)
