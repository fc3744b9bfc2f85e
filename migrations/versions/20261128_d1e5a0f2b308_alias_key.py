"""Keys of aliases: equal for aliases that differ only in case or width

Revision ID: d1e5a0f2b308
Revises: 9d3f5a7c2b11

PostgreSQL 15 to 17 cannot fold case by the rules of Unicode, so Python computes the keys. If the aliases of several
enrolled devices have the same key, none of these devices gets one. The previous release registers devices without a
key.
"""

import unicodedata
from collections import Counter

import sqlalchemy as sa
from alembic import op

from migrations import grants

revision = "d1e5a0f2b308"
down_revision = "9d3f5a7c2b11"
branch_labels = None
depends_on = None

SLICE = 5000
FILL = """
UPDATE devices d SET alias_key = new.key FROM unnest(%s::text[], %s::text[]) AS new(id, key) WHERE d.id = new.id
"""


def key(alias: str) -> str:
    """The key, as nexmdm.devices.aliases computed it when this revision was written."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", alias.strip()).casefold())


def upgrade() -> None:
    op.add_column("devices", sa.Column("alias_key", sa.Text(collation="C")))
    db = op.get_bind()
    grants.grant(db, "devices", nexmdm_device="INSERT (alias_key), UPDATE (alias, alias_key)")
    keys = {
        id_: key(alias)
        for id_, alias in db.exec_driver_sql("SELECT id, alias FROM devices WHERE deleted_at IS NULL").fetchall()
    }
    times = Counter(keys.values())
    alone = [(id_, made) for id_, made in keys.items() if times[made] == 1]
    for start in range(0, len(alone), SLICE):
        db.exec_driver_sql(FILL, tuple(map(list, zip(*alone[start : start + SLICE], strict=True))))


def downgrade() -> None:
    op.drop_column("devices", "alias_key")
