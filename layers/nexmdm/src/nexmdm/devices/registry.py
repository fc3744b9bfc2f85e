"""Devices as operators see them, and what a device says of itself outside of heartbeats."""

import time
from hashlib import sha256

from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, Row, elapsed_ms
from nexmdm.runtime.errors import DeviceDeleted, Forbidden, NotAuthenticated

# Who presents a token. The function holds the rule: the use of a device's newest token retires its older ones. A
# statement that begins so updates no row of `devices` by itself, since the function may have done it just before.
AUTHENTICATED = "device AS MATERIALIZED (SELECT * FROM authenticate_device_v1(%(token_id)s))"


def token_id(token: str) -> str:
    """What is stored of a token: its SHA-256 in hex. Tokens hold 256 random bits, so nothing slower is needed.

    It is also why looking one up in an index needs no constant time: what a caller could learn from the time is how far
    the hash of a guess agrees with a stored hash, and from a hash nobody gets back to a token.
    """
    return sha256(token.encode(errors="surrogatepass")).hexdigest()


def authenticated(rows: list[Row]) -> Row:
    """The one row of a statement that began with `AUTHENTICATED` and answers `device_id` and `deleted`.

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
    """Store the address that FCM gave to the device which holds `token`; return the device's id. Safe to repeat.

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
        raise Forbidden("device_id: it names another device than the token does.")
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
