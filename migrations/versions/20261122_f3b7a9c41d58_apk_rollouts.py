"""Builds are verified and rolled out: their state and rollout, pinned signers, who downloaded, what became of it

Revision ID: f3b7a9c41d58
Revises: e8a41f63d7c2

Builds have some hundred rows and their downloads are kept for 7 days: constraints are checked at once. A build of the
old server becomes `adopted`: it is history, its file is not in the bucket.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "f3b7a9c41d58"
down_revision = "e8a41f63d7c2"
branch_labels = None
depends_on = None

INSTANT = sa.TIMESTAMP(timezone=True)
HEX = "'^[0-9a-f]{64}$'"

BUILD_CHECKS = {
    "state": "state IN ('declared', 'published', 'refused', 'withdrawn', 'adopted')",
    "declared_in_full": "state = 'adopted' OR num_nulls(sha256, build_type, source, signer_fingerprint) = 0",
    "build_type": "state = 'adopted' OR build_type IN ('debug', 'release')",
    "source": "source IN ('manual', 'ci')",
    "sha256": f"sha256 ~ {HEX}",
    "published_is_pinned": "(state = 'published') = (object_version IS NOT NULL)",
    "refused_says_why": "(state = 'refused') = (refusal IS NOT NULL)",
    "current_is_published": "NOT is_current OR state = 'published'",
    "staged_rollout_percent": "staged_rollout_percent BETWEEN 0 AND 100",
    "paused_says_why": "(paused_at IS NULL) = (paused_reason IS NULL)",
}


def upgrade() -> None:
    # Rewrites what an old server left, with that server stopped; nothing else ever had rows at this revision.
    op.execute("SET LOCAL statement_timeout = 0")
    builds()
    signers()
    installations()
    downloads()


def downgrade() -> None:
    op.drop_constraint("ck_apk_download_events_one_caller", "apk_download_events")
    op.drop_column("apk_download_events", "adopted")
    op.drop_constraint("ck_apk_installations_status", "apk_installations")
    op.drop_constraint("ck_apk_installations_download_progress", "apk_installations")
    op.drop_column("apk_installations", "request_id")
    op.drop_table("apk_signers")
    op.drop_index("uq_apk_versions_live", "apk_versions")
    op.drop_index("uq_apk_versions_current", "apk_versions")
    for check in BUILD_CHECKS:
        op.drop_constraint(f"ck_apk_versions_{check}", "apk_versions")
    for column in build_columns():
        op.drop_column("apk_versions", column.name)


def build_columns() -> list[sa.Column]:
    return [
        # Those that are here now came with the old server.
        sa.Column("state", sa.Text, nullable=False, server_default="adopted"),
        sa.Column("sha256", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("object_version", sa.Text),
        sa.Column("published_at", INSTANT),
        sa.Column("refusal", sa.Text),
        sa.Column("is_current", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("replaces_id", sa.Integer),
        sa.Column("staged_rollout_percent", sa.Integer, nullable=False, server_default="100"),
        sa.Column("wifi_only", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("must_install", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("promoted_at", INSTANT),
        sa.Column("promoted_by", sa.Text),
        sa.Column("paused_at", INSTANT),
        sa.Column("paused_reason", sa.Text),
        sa.Column("rollout_completed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("rollout_failed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("downloads_issued", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("audit", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
    ]


def builds() -> None:
    for column in build_columns():
        op.add_column("apk_versions", column)
    op.alter_column("apk_versions", "state", server_default="declared")
    op.create_foreign_key("fk_apk_versions_replaces_id", "apk_versions", "apk_versions", ["replaces_id"], ["id"])
    for name, condition in BUILD_CHECKS.items():
        op.create_check_constraint(name, "apk_versions", condition)
    op.create_index(
        "uq_apk_versions_live",
        "apk_versions",
        ["package_name", "version_code", "build_type"],
        unique=True,
        postgresql_where=sa.text("state IN ('declared', 'published')"),
    )
    op.create_index(
        "uq_apk_versions_current",
        "apk_versions",
        ["package_name", "build_type"],
        unique=True,
        postgresql_where=sa.text("is_current"),
    )


def signers() -> None:
    op.create_table(
        "apk_signers",
        sa.Column("package_name", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("pinned_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("pinned_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("package_name", "fingerprint", name="pk_apk_signers"),
        sa.CheckConstraint(f"fingerprint ~ {HEX}", name="fingerprint"),
    )


def installations() -> None:
    op.add_column("apk_installations", sa.Column("request_id", sa.Text))
    # A status that nobody knows is kept in words.
    op.execute("""
        UPDATE apk_installations SET status = 'failed', error_message = coalesce(error_message, 'status: ' || status)
        WHERE status NOT IN ('pending', 'downloading', 'installing', 'completed', 'failed')
    """)
    op.execute("""
        UPDATE apk_installations SET download_progress = least(greatest(download_progress, 0), 100)
        WHERE download_progress NOT BETWEEN 0 AND 100
    """)
    op.create_check_constraint(
        "status", "apk_installations", "status IN ('pending', 'downloading', 'installing', 'completed', 'failed')"
    )
    op.create_check_constraint("download_progress", "apk_installations", "download_progress BETWEEN 0 AND 100")


def downloads() -> None:
    op.add_column("apk_download_events", sa.Column("adopted", sa.Boolean, nullable=False, server_default=sa.false()))
    # The old server did not always say who.
    op.execute("""
        UPDATE apk_download_events SET adopted = true WHERE num_nonnulls(token_id, device_id, admin_user) <> 1
    """)
    op.create_check_constraint(
        "one_caller", "apk_download_events", "adopted OR num_nonnulls(token_id, device_id, admin_user) = 1"
    )
