"""SQL functions for targets: online, labels against a selector, a device against a filter, the hash of a set

Revision ID: 1f19a0000006
Revises: 1f19a0000005
"""

from pathlib import Path

from alembic import op

from migrations import grants

revision = "1f19a0000006"
down_revision = "1f19a0000005"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"
FUNCTIONS = {
    "device_online": "timestamptz, double precision",
    "label_integer": "text",
    "labels_match": "jsonb, jsonb",
    "target_hash": "text[]",
    "device_matches": "text, jsonb, double precision",
}


def upgrade() -> None:
    for name in FUNCTIONS:
        # Executed without parameters, because the function's text may contain percent signs and colons.
        op.get_bind().exec_driver_sql((SQL / f"{name}_v1.sql").read_text())
        # A device that requests a build is compared with the filter of its rollout.
        grants.execute(op.get_bind(), name, "nexmdm_app", *(["nexmdm_device"] if name != "target_hash" else []))


def downgrade() -> None:
    for name, arguments in reversed(FUNCTIONS.items()):
        op.execute(f"DROP FUNCTION {name}({arguments})")
