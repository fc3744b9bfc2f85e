"""An FCM registration token belongs to one device: the latest to report it

Revision ID: d1e5a0f2b304
Revises: d1e5a0f2b303

The trigger is created first, so that the previous release, which still runs during a deploy, creates no new duplicates.
The next revision makes the tokens unique.
"""

from alembic import op

from migrations import grants
from migrations.sql import frozen

revision = "d1e5a0f2b304"
down_revision = "d1e5a0f2b303"
branch_labels = None
depends_on = None

# More than an index holds, and far more than FCM's tokens have: the phone reports its token again.
DROP_UNUSABLE = "UPDATE devices SET fcm_token = NULL, fcm_token_at = NULL WHERE octet_length(fcm_token) > 2600"

KEEP_THE_NEWEST = """
UPDATE devices d SET fcm_token = NULL, fcm_token_at = NULL
FROM (SELECT id, row_number() OVER (
          PARTITION BY fcm_token ORDER BY fcm_token_at DESC NULLS LAST, created_at DESC, id) AS place
      FROM devices WHERE fcm_token IS NOT NULL) AS held
WHERE held.id = d.id AND held.place > 1
"""


def upgrade() -> None:
    op.execute(frozen("take_fcm_token_v1"))
    grants.execute(op.get_bind(), "take_fcm_token_v1")
    op.execute(
        "CREATE TRIGGER take_fcm_token_of_new BEFORE INSERT ON devices FOR EACH ROW"
        " WHEN (NEW.fcm_token IS NOT NULL) EXECUTE FUNCTION take_fcm_token_v1()"
    )
    op.execute(
        "CREATE TRIGGER take_fcm_token BEFORE UPDATE OF fcm_token ON devices FOR EACH ROW"
        " WHEN (NEW.fcm_token IS NOT NULL AND NEW.fcm_token IS DISTINCT FROM OLD.fcm_token)"
        " EXECUTE FUNCTION take_fcm_token_v1()"
    )
    op.execute(DROP_UNUSABLE)
    op.execute(KEEP_THE_NEWEST)


def downgrade() -> None:
    op.execute("DROP TRIGGER take_fcm_token ON devices")
    op.execute("DROP TRIGGER take_fcm_token_of_new ON devices")
    op.execute("DROP FUNCTION take_fcm_token_v1")
