"""Only the use of a device's newest token retires the older ones

Revision ID: d1e5a0f2b303
Revises: d1e5a0f2b302

`prior_token_id` is the token before the newest one, as code that still runs knows it; `older_token_ids` holds those
before it. Deleted devices get 410 for 24 hours; then their tokens are unknown.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from migrations import grants
from migrations.sql import frozen

revision = "d1e5a0f2b303"
down_revision = "d1e5a0f2b302"
branch_labels = None
depends_on = None

TABLE, INDEX = "devices", "ix_devices_older_token_ids"
COLUMNS = "older_token_ids, taken_over_at, unregistered_fcm_token"


def upgrade() -> None:
    op.add_column(TABLE, sa.Column("older_token_ids", ARRAY(sa.Text), nullable=False, server_default="{}"))
    op.add_column(TABLE, sa.Column("taken_over_at", sa.TIMESTAMP(timezone=True)))
    op.add_column(TABLE, sa.Column("unregistered_fcm_token", sa.Text))
    grants.grant(op.get_bind(), TABLE, nexmdm_device=f"UPDATE ({COLUMNS})")
    op.create_index(INDEX, TABLE, ["older_token_ids"], postgresql_using="gin")
    for function in ("authenticate_device_v1", "store_fcm_token_v1"):
        op.execute(frozen(function))
        grants.execute(op.get_bind(), function, "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    op.execute("DROP FUNCTION authenticate_device_v1, store_fcm_token_v1")
    op.drop_index(INDEX, TABLE)
    for column in COLUMNS.split(", "):
        op.drop_column(TABLE, column)
