"""Keys of aliases: equal for aliases that differ only in case, width or what is invisible

Revision ID: d1e5a0f2b308
Revises: 9d3f5a7c2b11

PostgreSQL 15 to 17 cannot fold case by the rules of Unicode, so Python computes the keys. If the aliases of several
enrolled devices have the same key, none of these devices gets one. The previous release registers devices without a
key.
"""

import re
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
# Default_Ignorable_Code_Point in Unicode 16, without category Cf.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
FILL = """
UPDATE devices d SET alias_key = new.key FROM unnest(%s::text[], %s::text[]) AS new(id, key) WHERE d.id = new.id
"""


def key(alias: str) -> str:
    """The key, as nexmdm.devices.aliases computed it when this revision was written."""
    shown = "".join(c for c in alias if unicodedata.category(c) != "Cf" and not _IGNORABLE.match(c))
    spaced = shown.replace("\N{BRAILLE PATTERN BLANK}", " ").strip()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", spaced).casefold())


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
