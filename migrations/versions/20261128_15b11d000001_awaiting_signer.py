"""A verified build of a package without pinned signers waits for a signer

Revision ID: 15b11d000001
Revises: 1f19a0000007

Its bytes are pinned and its version code is taken, as for a published build. The index also serves the ON CONFLICT
clause of the old code, whose condition implies that of the index.
"""

from alembic import op

revision = "15b11d000001"
down_revision = "1f19a0000007"
branch_labels = None
depends_on = None

STATES = "state IN ('declared', 'awaiting_signer', 'published', 'refused', 'withdrawn', 'adopted')"
EARLIER_STATES = "state IN ('declared', 'published', 'refused', 'withdrawn', 'adopted')"
PINNED = "(state IN ('awaiting_signer', 'published')) = (object_version IS NOT NULL)"
EARLIER_PINNED = "(state = 'published') = (object_version IS NOT NULL)"
LIVE = "state IN ('declared', 'awaiting_signer', 'published')"
EARLIER_LIVE = "state IN ('declared', 'published')"


def upgrade() -> None:
    _replace(STATES, PINNED, LIVE)


def downgrade() -> None:
    op.execute("UPDATE apk_versions SET state = 'withdrawn', object_version = NULL WHERE state = 'awaiting_signer'")
    _replace(EARLIER_STATES, EARLIER_PINNED, EARLIER_LIVE)


def _replace(states: str, pinned: str, live: str) -> None:
    for name, condition in (("ck_apk_versions_state", states), ("ck_apk_versions_published_is_pinned", pinned)):
        op.execute(f"ALTER TABLE apk_versions DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({condition})")
    op.execute("DROP INDEX uq_apk_versions_live")
    op.execute(
        "CREATE UNIQUE INDEX uq_apk_versions_live ON apk_versions (package_name, version_code, build_type)"
        f" WHERE {live}"
    )
