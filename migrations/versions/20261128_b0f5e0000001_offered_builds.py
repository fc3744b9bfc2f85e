"""SQL functions for offered builds: a device's bucket, the devices of a rollout, and a package's build for a device

Revision ID: b0f5e0000001
Revises: d7c4e1a90b01
"""

from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "b0f5e0000001"
down_revision = "d7c4e1a90b01"
branch_labels = None
depends_on = None

FUNCTIONS = {
    "rollout_bucket_v1": "integer, text",
    "rollout_reaches_v1": "integer, integer, jsonb, text, double precision",
    "offered_build_v1": "text, text, double precision",
}


def upgrade() -> None:
    for name in FUNCTIONS:
        op.execute(frozen(name))
        grants.execute(op.get_bind(), name, "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    for name, arguments in reversed(FUNCTIONS.items()):
        op.execute(f"DROP FUNCTION {name}({arguments})")
