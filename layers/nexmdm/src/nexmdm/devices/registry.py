"""Devices as operators see them, and what a device says of itself outside of heartbeats."""

import time
from hashlib import sha256

from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, Row, elapsed_ms
from nexmdm.runtime.errors import DeviceDeleted, Forbidden, NotAuthenticated, UnknownDevice

# Who presents a token.
AUTHENTICATED = """
device AS MATERIALIZED (
    SELECT id, deleted_at, confirmed_at FROM devices
    WHERE token_id = %(token_id)s OR prior_token_id = %(token_id)s
)"""


# The first authenticated call makes the token that it used the only one.
CONFIRMED = """
confirmed AS (
    UPDATE devices d SET token_id = %(token_id)s, prior_token_id = NULL, confirmed_at = clock_timestamp()
    FROM device
    WHERE d.id = device.id AND device.confirmed_at IS NULL AND device.deleted_at IS NULL AND d.confirmed_at IS NULL
      AND (d.token_id = %(token_id)s OR d.prior_token_id = %(token_id)s)
)"""


def token_id(token: str) -> str:
    """What is stored of a token: its SHA-256 in hex. Tokens hold 256 random bits, so nothing slower is needed.

    It is also why looking one up in an index needs no constant time: what a caller could learn from the time is how far
    the hash of a guess agrees with a stored hash, and from a hash nobody gets back to a token.
    """
    return sha256(token.encode(errors="surrogatepass")).hexdigest()


def authenticated(rows: list[Row]) -> Row:
    """The one row of a statement that began with `AUTHENTICATED` and answers `device_id` and `deleted`.

    Raises:
        NotAuthenticated: nobody has the token.
        DeviceDeleted: somebody had.
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
    return row["device_id"]


def show(db: Executor, device_id: str, interval_seconds: int) -> Row:
    """One device with its last status.

    Raises:
        UnknownDevice: there is none, or it was deleted.
    """
    rows = db.execute(_SHOW, {"device_id": device_id, "interval_seconds": interval_seconds}, repeatable=True)
    if not rows:
        raise UnknownDevice(f"There is no device {device_id!r}.")
    return rows[0]


_SET_FCM_TOKEN = f"""
WITH {AUTHENTICATED}, updated AS (
    UPDATE devices d SET
        token_id = %(token_id)s, prior_token_id = NULL,
        confirmed_at = coalesce(d.confirmed_at, statement_timestamp()),
        fcm_token = %(fcm_token)s, fcm_token_at = statement_timestamp()
    FROM device
    WHERE d.id = device.id AND device.deleted_at IS NULL AND d.id = coalesce(%(claimed)s, d.id)
      AND (d.token_id = %(token_id)s OR d.prior_token_id = %(token_id)s)
      AND (d.fcm_token IS DISTINCT FROM %(fcm_token)s OR d.confirmed_at IS NULL)
)
SELECT id AS device_id, deleted_at IS NOT NULL AS deleted, id = coalesce(%(claimed)s, id) AS own FROM device
"""

DEVICE_COLUMNS = """
    d.id AS device_id, d.alias, d.created_at, d.hardware_id, d.fcm_token IS NOT NULL AS has_fcm_token,
    d.model, d.manufacturer, d.android_version, d.sdk_int, d.build_id, d.is_device_owner, d.labels, d.monitored_package,
    device_online(l.last_seen_at, %(interval_seconds)s) AS online,
    l.last_seen_at, l.last_ts, l.status, l.ip, l.battery_pct, l.plugged, l.temp_c, l.network_type, l.signal_dbm,
    l.uptime_s, l.ram_used_mb, l.unity_pkg_version, l.unity_running, l.agent_version,
    l.power_ok, l.doze_whitelisted, l.net_validated, l.queue_depth"""

_SHOW = f"""
SELECT {DEVICE_COLUMNS}
FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.id = %(device_id)s AND d.deleted_at IS NULL
"""
