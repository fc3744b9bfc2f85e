"""Reports of the old server from the future no longer hide what a device reports now

Revision ID: 5eed0a1b0005
Revises: 5eed0a1b0004

The old server stored any time that a device sent, and adoption made the newest one the last status: no correct report
replaced it before that time. Such heartbeats move to old_server_values, and the newest of the others becomes the last
status. NexMDM itself stores no time more than 5 minutes ahead, so rows of a server that is running are not touched.
"""

from alembic import op

from migrations.adoption import catalog
from migrations.adoption.steps import ARCHIVE, CREATE_ARCHIVE, keep

revision = "5eed0a1b0005"
down_revision = "5eed0a1b0004"
branch_labels = None
depends_on = None

FUTURE = "now() + interval '10 minutes'"
HEARTBEATS = f"device_heartbeats WHERE bucket > {FUTURE}"
STATUSES = f"device_last_status l WHERE greatest(last_ts, last_seen_at) > {FUTURE}"
NEWEST = "SELECT * FROM device_heartbeats WHERE device_id = l.device_id ORDER BY bucket DESC LIMIT 1"
REPORT = """status, ip, battery_pct, plugged, temp_c, network_type, ssid, carrier, signal_dbm, uptime_s, ram_used_mb,
    pressure_pct, unity_pkg_version, unity_running, agent_version, power_ok, doze_whitelisted, net_validated,
    queue_depth, monitored_foreground_recent_s"""

REPLACE = f"""
UPDATE device_last_status l SET (last_ts, {REPORT}) = (SELECT ts, {REPORT} FROM ({NEWEST}) AS newest)
WHERE last_ts > {FUTURE} AND EXISTS ({NEWEST})
"""
# `last_seen` is by the old server's own clock. Where nothing says when the server heard from the device, it is now.
SEEN = f"""
UPDATE device_last_status l SET last_ts = least(last_ts, seen.at), last_seen_at = seen.at
FROM (
    SELECT device_id, least(now(), greatest(
        (SELECT received_at FROM ({NEWEST}) AS newest),
        (SELECT (old->>'last_seen')::timestamptz FROM {ARCHIVE} WHERE table_name = 'devices' AND row_key = device_id)
    )) AS at
    FROM {STATUSES}
) AS seen
WHERE seen.device_id = l.device_id
"""


def upgrade() -> None:
    db = op.get_bind()
    if not db.exec_driver_sql(f"SELECT EXISTS (SELECT FROM {HEARTBEATS}) OR EXISTS (SELECT FROM {STATUSES})").scalar():
        return
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute("SET LOCAL timezone = 'UTC'")  # the old server's instants carry no zone and mean UTC
    if not catalog.exists(db, ARCHIVE):
        op.execute(CREATE_ARCHIVE)
    op.execute(keep("device_heartbeats", "hb_id", "to_jsonb(device_heartbeats)", HEARTBEATS))
    op.execute(f"DELETE FROM {HEARTBEATS}")
    op.execute(REPLACE)
    op.execute(SEEN)


def downgrade() -> None:
    """What was moved stays in old_server_values."""
