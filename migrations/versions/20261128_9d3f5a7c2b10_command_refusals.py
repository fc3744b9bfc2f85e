"""Dispatches count the answers of FCM that say: certainly not accepted

Revision ID: 9d3f5a7c2b10
Revises: e7a1c2d3f403

With it the audit of commands tells an attempt that reached nothing from one that may have. Null on rows that a release
before this column accepted: the audit exempts them from that rule.
"""

import sqlalchemy as sa
from alembic import op

revision = "9d3f5a7c2b10"
down_revision = "e7a1c2d3f403"
branch_labels = None
depends_on = None

TABLE = "fcm_dispatches"
CHECK = "ck_fcm_dispatches_refused"


def upgrade() -> None:
    op.add_column(TABLE, sa.Column("refused", sa.Integer))
    # Every row is null at this moment, so the check has nothing to wait for.
    op.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT {CHECK} CHECK (refused BETWEEN 0 AND attempts) NOT VALID")


def downgrade() -> None:
    op.drop_column(TABLE, "refused")
