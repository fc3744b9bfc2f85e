"""The delivery of a command: at most once, or repeated until the device answers

Revision ID: c0a1d5e7b201
Revises: a9d4e7b25c10

The next revision validates the constraints, so that no writer waits for a scan of the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "c0a1d5e7b201"
down_revision = "a9d4e7b25c10"
branch_labels = None
depends_on = None

TABLE = "fcm_dispatches"
DELIVERY = "ck_fcm_dispatches_delivery"
SECRETS = "ck_fcm_dispatches_secrets_only_while_sendable"
OPEN = "state IN ('accepted', 'sending', 'retry_wait', 'unknown')"
UNANSWERED = "delivery = 'until_answered' AND state = 'sent'"
WIPED = "secrets IS NULL OR secrets = '{}'::jsonb"


def upgrade() -> None:
    op.add_column(TABLE, sa.Column("delivery", sa.Text, nullable=False, server_default="at_most_once"))
    op.execute(
        f"ALTER TABLE {TABLE} DROP CONSTRAINT {SECRETS},"
        f" ADD CONSTRAINT {DELIVERY} CHECK (delivery IN ('at_most_once', 'until_answered')) NOT VALID,"
        f" ADD CONSTRAINT {SECRETS} CHECK ({WIPED} OR (completed_at IS NULL AND ({OPEN} OR ({UNANSWERED})))) NOT VALID"
    )


def downgrade() -> None:
    op.execute(f"UPDATE {TABLE} SET secrets = '{{}}' WHERE {UNANSWERED} AND secrets IS NOT NULL")
    op.execute(
        f"ALTER TABLE {TABLE} DROP CONSTRAINT {SECRETS},"
        f" ADD CONSTRAINT {SECRETS} CHECK ({WIPED} OR (completed_at IS NULL AND {OPEN}))"
    )
    op.drop_column(TABLE, "delivery")
