"""Dispatches count the responses by which FCM certainly did not accept a message

Revision ID: 9d3f5a7c2b10
Revises: e7a1c2d3f403

The count lets the audit of commands distinguish an attempt that certainly delivered nothing from one that may have. It
is null on rows that an earlier release accepted; the audit exempts them from that rule.
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
    # The column is null in every row at this moment, so the constraint need not wait for a scan.
    op.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT {CHECK} CHECK (refused BETWEEN 0 AND attempts) NOT VALID")


def downgrade() -> None:
    op.drop_column(TABLE, "refused")
