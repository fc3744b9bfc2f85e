"""Observed progress of an installation, separate from what the agent claims

Revision ID: 15b11d000004
Revises: 15b11d000003

installing_at: when the device reported that it is installing. claimed_at: when it reported completion, which deployed
agents also do before the download; the claim counts only if the device reports the version, or reported `installing`
before. A rollout that is paused automatically records an event.
"""

import sqlalchemy as sa
from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "15b11d000004"
down_revision = "15b11d000003"
branch_labels = None
depends_on = None

STATES = "status IN ('pending', 'downloading', 'installing', 'completed', 'failed', 'unknown')"
EARLIER = "status IN ('pending', 'downloading', 'installing', 'completed', 'failed')"


def upgrade() -> None:
    op.add_column("apk_installations", sa.Column("installing_at", sa.TIMESTAMP(timezone=True)))
    op.add_column("apk_installations", sa.Column("claimed_at", sa.TIMESTAMP(timezone=True)))
    _replace(STATES)
    op.execute(
        "CREATE INDEX ix_apk_installations_open ON apk_installations (initiated_at)"
        " WHERE status IN ('pending', 'downloading', 'installing', 'unknown')"
    )
    grants.grant(op.get_bind(), "apk_installations", nexmdm_device="UPDATE (installing_at, claimed_at)")
    op.execute(frozen("record_system_event_v2"))
    grants.execute(op.get_bind(), "record_system_event_v2", "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    op.execute("DROP FUNCTION record_system_event_v2")
    op.execute("UPDATE apk_installations SET status = 'failed' WHERE status = 'unknown'")
    op.drop_index("ix_apk_installations_open")
    _replace(EARLIER)
    op.drop_column("apk_installations", "claimed_at")
    op.drop_column("apk_installations", "installing_at")


def _replace(states: str) -> None:
    name = "ck_apk_installations_status"
    op.execute(f"ALTER TABLE apk_installations DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({states})")
