"""More of the fields that devices report, and the columns that detect inconsistent reports

Revision ID: d1e5a0f2b301
Revises: 15b11d000005

`status` is null if the reported value is not ok, warn or error. `received_at` and `device_ts` detect a clock that was
set back; `boot_at`, `earlier_boot_at` and `earlier_model` detect two phones with the same device token.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "d1e5a0f2b301"
down_revision = "15b11d000005"
branch_labels = None
depends_on = None

Columns = dict[str, TypeEngine[Any] | type[TypeEngine[Any]]]
NEW: Columns = {
    "ssid": sa.Text,
    "carrier": sa.Text,
    "pressure_pct": sa.Integer,
    "monitored_foreground_recent_s": sa.BigInteger,
}
INSTANT = sa.TIMESTAMP(timezone=True)
OF_LAST_STATUS: Columns = {
    "received_at": INSTANT,
    "device_ts": INSTANT,
    "boot_at": INSTANT,
    "earlier_boot_at": INSTANT,
    "earlier_model": sa.Text,
    "token_shared_at": INSTANT,
    "apps_hash": sa.Text,
    "apps_changed_at": INSTANT,
}
TABLES = {"device_heartbeats": NEW, "device_last_status": NEW | OF_LAST_STATUS}


def upgrade() -> None:
    for table, columns in TABLES.items():
        for name, type_ in columns.items():
            op.add_column(table, sa.Column(name, type_))
        op.alter_column(table, "status", nullable=True)


def downgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"UPDATE {table} SET status = 'ok' WHERE status IS NULL")
        op.alter_column(table, "status", nullable=False)
        for name in columns:
            op.drop_column(table, name)
