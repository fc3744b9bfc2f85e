"""Device tokens, and what a device reports outside heartbeats."""

import time
from hashlib import sha256

from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, Row, elapsed_ms
from nexmdm.runtime.errors import DeviceDeleted, Forbidden, NotAuthenticated

# The device that presents a token. The function contains the rule that using a device's newest token retires its older
# ones. A statement that begins with this must not update `devices` itself, because the function may have just done so.
AUTHENTICATED = "device AS MATERIALIZED (SELECT * FROM authenticate_device_v1(%(token_id)s))"


def token_id(token: str) -> str:
    """The stored form of a token: its SHA-256 in hex. Tokens have 256 random bits, so no slower hash is needed.

    The index lookup does not need constant time either: from its duration a caller could at most learn how many
    characters the hash of a guess shares with a stored hash, and a token cannot be derived from its hash.
    """
    return sha256(token.encode(errors="surrogatepass")).hexdigest()


def authenticated(rows: list[Row]) -> Row:
    """The only row of a statement that begins with `AUTHENTICATED` and returns `device_id` and `deleted`.

    Raises:
        NotAuthenticated: no device has the token, or its device was deleted more than 24 hours ago.
        DeviceDeleted: the device was deleted within the last 24 hours.
    """
    if not rows:
        raise NotAuthenticated("The device token is not valid.")
    if rows[0]["deleted"]:
        raise DeviceDeleted
    return rows[0]


def set_fcm_token(db: Executor, token: str, claimed_device_id: str | None, fcm_token: str) -> str:
    """Store the FCM registration token of the device with this `token`; return the device's id. Safe to repeat.

    Raises:
        Forbidden: the body names another device.
    """
    start = time.perf_counter()
    rows = db.execute(
        _SET_FCM_TOKEN,
        {"token_id": token_id(token), "claimed": claimed_device_id, "fcm_token": fcm_token},
        repeatable=True,
    )
    row = authenticated(rows)
    if not row["own"]:
        raise Forbidden("device_id: it is not the device that the token belongs to.")
    logs.db_operation("update", "devices", {"device_id": row["device_id"]}, elapsed_ms(start))
    device_id: str = row["device_id"]
    return device_id


_SET_FCM_TOKEN = f"""
WITH {AUTHENTICATED}, named AS (
    SELECT id, deleted_at IS NOT NULL AS deleted, id = coalesce(%(claimed)s, id) AS own FROM device
)
SELECT id AS device_id, deleted, own,
    CASE WHEN own AND NOT deleted THEN store_fcm_token_v1(id, %(token_id)s, %(fcm_token)s) END AS stored
FROM named
"""
