"""An index for the pages of a build's installations, newest first

Revision ID: 5eed0a1b0002
Revises: 5eed0a1b0001
"""

from migrations.concurrently import create_index, drop_index

revision = "5eed0a1b0002"
down_revision = "5eed0a1b0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index("ix_apk_installations_of_build", "apk_installations", "apk_version_id, id")


def downgrade() -> None:
    drop_index("ix_apk_installations_of_build", "apk_installations")
