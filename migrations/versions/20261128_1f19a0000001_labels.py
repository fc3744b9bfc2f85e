"""Labels of devices, and of the enrollment tokens that assign them

Revision ID: 1f19a0000001
Revises: c51e9b7a2d06

At most 32 labels; keys like `site`, values strings of at most 200 characters. The next revision validates the
constraints, so that no writer waits for a scan of the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations import grants

revision = "1f19a0000001"
down_revision = "c51e9b7a2d06"
branch_labels = None
depends_on = None

LIMITS = (
    "jsonb_typeof(labels) = 'object'"
    " AND jsonb_array_length(jsonb_path_query_array(labels, 'strict $.keyvalue()', '{}', true)) <= 32"
    ' AND NOT labels @? \'strict $.keyvalue() ? (!(@.key like_regex "^[a-z][a-z0-9_.-]{0,31}$")'
    ' || @.value.type() != "string" || !(@.value like_regex "^.{0,200}$" flag "s"))\''
)


def upgrade() -> None:
    for table in ("devices", "enrollment_tokens"):
        op.add_column(table, sa.Column("labels", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")))
        op.get_bind().exec_driver_sql(
            f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_labels CHECK ({LIMITS}) NOT VALID"
        )
    # A device that registers gets the labels of its token.
    grants.grant(op.get_bind(), "devices", nexmdm_device="INSERT (labels), UPDATE (labels)")


def downgrade() -> None:
    for table in ("devices", "enrollment_tokens"):
        op.drop_column(table, "labels")
