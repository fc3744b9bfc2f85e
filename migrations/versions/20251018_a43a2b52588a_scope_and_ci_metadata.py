"""Scope and last use of enrolment tokens, CI metadata of builds, and their indexes

Revision ID: a43a2b52588a
Revises: 7ac6ecbe4e31
"""

import sqlalchemy as sa
from alembic import op

revision = "a43a2b52588a"
down_revision = "7ac6ecbe4e31"
branch_labels = None
depends_on = None

CI_METADATA = ("notes", "build_type", "ci_run_id", "git_sha", "signer_fingerprint", "storage_url")


def upgrade() -> None:
    op.add_column("enrollment_tokens", sa.Column("scope", sa.Text, nullable=False, server_default="register"))
    op.add_column("enrollment_tokens", sa.Column("last_used_at", sa.TIMESTAMP(timezone=True)))
    op.create_index("idx_enrollment_issued_by", "enrollment_tokens", ["issued_by", "issued_at"])
    op.create_index("ix_enrollment_tokens_alias", "enrollment_tokens", ["alias"])
    op.create_unique_constraint("uq_enrollment_token_hash", "enrollment_tokens", ["token_hash"])
    op.add_column("apk_versions", sa.Column("package_name", sa.Text, nullable=False, server_default="com.example.app"))
    for name in CI_METADATA:
        op.add_column("apk_versions", sa.Column(name, sa.Text))
    op.create_index("idx_apk_build_type", "apk_versions", ["version_code", "build_type"])
    op.create_index("idx_apk_version_lookup", "apk_versions", ["package_name", "version_code"])


def downgrade() -> None:
    op.drop_index("idx_apk_version_lookup", "apk_versions")
    op.drop_index("idx_apk_build_type", "apk_versions")
    for name in (*CI_METADATA, "package_name"):
        op.drop_column("apk_versions", name)
    op.drop_constraint("uq_enrollment_token_hash", "enrollment_tokens")
    op.drop_index("ix_enrollment_tokens_alias", "enrollment_tokens")
    op.drop_index("idx_enrollment_issued_by", "enrollment_tokens")
    op.drop_column("enrollment_tokens", "last_used_at")
    op.drop_column("enrollment_tokens", "scope")
