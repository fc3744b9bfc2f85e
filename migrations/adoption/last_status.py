"""What the old server knew of a device's last status, into our device_last_status.

Of three sources the first that has something counts: its own device_last_status, the last heartbeat's body that it kept
as text in devices.last_status, the newest row of device_heartbeats. devices.last_seen says when it heard from it.
"""

from sqlalchemy import Connection

from migrations.adoption import catalog
from migrations.adoption.steps import ARCHIVE

UNITY_PACKAGE = "io.unitynodes.unityapp"


def carry_over(db: Connection) -> None:
    """Fill device_last_status and mark revoked devices; nothing where no old server was adopted."""
    # The old server's instants carry no zone and mean UTC.
    db.exec_driver_sql("SET LOCAL timezone = 'UTC'")
    statements = [_FROM_HEARTBEATS]
    if catalog.exists(db, ARCHIVE):
        statements = [_TRY_JSON, _FROM_TABLE, _FROM_BODY, _FROM_HEARTBEATS, _LAST_SEEN, _REVOKED, _DROP_TRY_JSON]
    for statement in statements:
        db.exec_driver_sql(statement, execution_options={"no_parameters": True})


# What is no JSON, or holds what PostgreSQL cannot, is no status: the device's next heartbeat brings one.
_TRY_JSON = """
CREATE FUNCTION nexmdm_try_jsonb(value text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN RETURN value::jsonb; EXCEPTION WHEN data_exception OR program_limit_exceeded THEN RETURN NULL; END $$;
CREATE FUNCTION nexmdm_number(value jsonb, low numeric, high numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN jsonb_typeof(value) = 'number' AND value::numeric BETWEEN low AND high THEN value::numeric END $$;
CREATE FUNCTION nexmdm_flag(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN jsonb_typeof(value) = 'boolean' THEN value::boolean END $$;
"""
_DROP_TRY_JSON = """
DROP FUNCTION nexmdm_try_jsonb(text);
DROP FUNCTION nexmdm_number(jsonb, numeric, numeric);
DROP FUNCTION nexmdm_flag(jsonb);
"""

_FROM_TABLE = f"""
INSERT INTO device_last_status (device_id, last_ts, last_seen_at, status, ip, battery_pct, network_type, signal_dbm,
    unity_running, agent_version)
SELECT d.id, at.ts, at.ts,
    CASE WHEN old->>'status' IN ('ok', 'warn', 'error') THEN old->>'status' ELSE 'warn' END, old->>'ip',
    round(nexmdm_number(old->'battery_pct', 0, 100))::int, old->>'network_type',
    round(nexmdm_number(old->'signal_dbm', -1000, 1000))::int, nexmdm_flag(old->'unity_running'), old->>'agent_version'
FROM {ARCHIVE} JOIN devices d ON d.id = row_key
CROSS JOIN LATERAL (SELECT (old->>'last_ts')::timestamptz AS ts) AS at
WHERE table_name = 'device_last_status'
ON CONFLICT DO NOTHING
"""

_FROM_BODY = f"""
INSERT INTO device_last_status (device_id, last_ts, last_seen_at, status, ip, battery_pct, plugged, temp_c,
    network_type, uptime_s, ram_used_mb, unity_pkg_version, unity_running, agent_version,
    power_ok, doze_whitelisted, net_validated, queue_depth)
SELECT d.id, at.ts, at.ts, 'ok', body #>> '{{network,ip}}',
    round(nexmdm_number(body #> '{{battery,pct}}', 0, 100))::int, nexmdm_flag(body #> '{{battery,charging}}'),
    nexmdm_number(body #> '{{battery,temperature_c}}', -1000, 1000)::float8, body #>> '{{network,transport}}',
    round(nexmdm_number(body #> '{{system,uptime_seconds}}', 0, 1e15))::bigint,
    round(nexmdm_number(body #> '{{memory,total_ram_mb}}', 0, 1e9)
        - nexmdm_number(body #> '{{memory,avail_ram_mb}}', 0, 1e9))::int,
    body #>> '{{app_versions,{UNITY_PACKAGE},version_name}}', nexmdm_flag(body->'unity_process_running'),
    body->>'app_version', nexmdm_flag(body->'power_ok'), nexmdm_flag(body->'doze_whitelisted'),
    nexmdm_flag(body->'net_validated'), round(nexmdm_number(body->'queue_depth', 0, 1e9))::int
FROM {ARCHIVE} JOIN devices d ON d.id = row_key
CROSS JOIN LATERAL (SELECT nexmdm_try_jsonb(old->>'last_status') AS body) AS parsed
CROSS JOIN LATERAL (SELECT (old->>'last_seen')::timestamptz AS ts) AS at
WHERE table_name = 'devices' AND jsonb_typeof(body) = 'object' AND at.ts IS NOT NULL
ON CONFLICT DO NOTHING
"""

_REPORT = """status, ip, battery_pct, plugged, temp_c, network_type, signal_dbm, uptime_s, ram_used_mb,
    unity_pkg_version, unity_running, agent_version"""
_FROM_HEARTBEATS = f"""
INSERT INTO device_last_status (device_id, last_ts, last_seen_at, {_REPORT})
SELECT DISTINCT ON (device_id) device_id, ts, received_at, {_REPORT} FROM device_heartbeats
ORDER BY device_id, ts DESC
ON CONFLICT DO NOTHING
"""

_LAST_SEEN = f"""
UPDATE device_last_status SET last_seen_at = at.ts
FROM {ARCHIVE} CROSS JOIN LATERAL (SELECT (old->>'last_seen')::timestamptz AS ts) AS at
WHERE table_name = 'devices' AND row_key = device_id AND at.ts > last_seen_at
"""

_REVOKED = f"""
UPDATE devices SET deleted_at = at.ts, deleted_by = 'old server', fcm_token = NULL
FROM {ARCHIVE} CROSS JOIN LATERAL (SELECT (old->>'token_revoked_at')::timestamptz AS ts) AS at
WHERE table_name = 'devices' AND row_key = id AND at.ts IS NOT NULL AND deleted_at IS NULL
"""
