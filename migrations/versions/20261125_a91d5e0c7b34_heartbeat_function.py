"""The heartbeat's statement as a function, so that every session plans it once

Revision ID: a91d5e0c7b34
Revises: d4e1a7c05b92

A function is never changed once it is released: code that still runs calls it. The next version has another name, and
the one before goes a release later.
"""

from alembic import op

revision = "a91d5e0c7b34"
down_revision = "d4e1a7c05b92"
branch_labels = None
depends_on = None

REPORT_TYPES = {
    "status": "text",
    "ip": "text",
    "battery_pct": "int",
    "plugged": "bool",
    "temp_c": "float8",
    "network_type": "text",
    "signal_dbm": "int",
    "uptime_s": "int8",
    "ram_used_mb": "int",
    "unity_pkg_version": "text",
    "unity_running": "bool",
    "agent_version": "text",
    "power_ok": "bool",
    "doze_whitelisted": "bool",
    "net_validated": "bool",
    "queue_depth": "int",
}
# What a report says of the device itself, kept on the device's own row.
DEVICE_TYPES = {
    "model": "text",
    "manufacturer": "text",
    "android_version": "text",
    "sdk_int": "int",
    "build_id": "text",
    "is_device_owner": "bool",
}
ITEM_TYPES = {
    "device_ts": "timestamptz",
    "fcm_token": "text",
    "ping_request_id": "text",
    **REPORT_TYPES,
    **DEVICE_TYPES,
}
NAMES = ", ".join(ITEM_TYPES)
ITEM = ", ".join(f"{name} {type_}" for name, type_ in ITEM_TYPES.items())
COLUMNS = ", ".join(REPORT_TYPES)
UPDATES = ", ".join(f"{name} = excluded.{name}" for name in REPORT_TYPES)
FACTS_KEPT = ", ".join(
    f"{name} = CASE WHEN EXISTS (SELECT FROM advanced) THEN coalesce(newest.{name}, d.{name}) ELSE d.{name} END"
    for name in DEVICE_TYPES
)
FACTS_NEW = ", ".join(f"coalesce(newest.{name}, d.{name})" for name in DEVICE_TYPES)
FACTS_OLD = ", ".join(f"d.{name}" for name in DEVICE_TYPES)
NEWER_FCM = """coalesce(
            newest.fcm_token <> coalesce(d.fcm_token, '') AND coalesce(newest.ts > d.fcm_token_at, true), false)"""
# By its token, or by its id for a caller that knows the device already; the other of the two is null.
WHO = "(d.token_id = p_token_id OR d.prior_token_id = p_token_id OR d.id = p_device_id)"
BUCKET = "date_bin(make_interval(secs => p_bucket_seconds), {}, timestamptz '1970-01-01 00:00:00+00')"

# One plan for every call: it does not depend on the parameters. Index scans also while a partition is new and empty,
# since the plan will be kept while it fills; and nothing here is worth compiling.
RECORD_HEARTBEATS = f"""
CREATE FUNCTION record_heartbeats_v1(
    p_token_id text, p_device_id text, p_reports json, p_oldest timestamptz, p_newest timestamptz,
    p_bucket_seconds int, p_retention_days int, p_interval_seconds int
) RETURNS TABLE (
    device_id text, deleted bool, buckets timestamptz[], created int8[], last_status_updated bool, pending json
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $function$
#variable_conflict use_column
DECLARE
    own text;
    may_be_stored bool;
    stored timestamptz[] := '{{}}';
BEGIN
    SELECT d.id, l.last_ts >= p_oldest INTO own, may_be_stored
    FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE {WHO};
    IF NOT FOUND THEN
        RETURN;
    END IF;

    -- Repeats are stopped before the insert: a conflict would still consume a sequence value. Nothing is stored of a
    -- bucket that begins after the device's last report, so nearly every heartbeat goes without looking at partitions.
    IF may_be_stored THEN
        stored := ARRAY(
            SELECT h.bucket
            FROM json_to_recordset(p_reports) AS r(device_ts timestamptz)
            JOIN device_heartbeats h ON h.device_id = own AND h.bucket = {BUCKET.format("r.device_ts")}
            WHERE h.bucket BETWEEN p_oldest AND p_newest);
    END IF;

    RETURN QUERY
    WITH device AS MATERIALIZED (
        SELECT d.id, d.deleted_at, d.fcm_token, d.fcm_token_at, l.last_ts, l.last_seen_at
        FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
        WHERE d.id = own AND {WHO}
    ), report AS MATERIALIZED (
        -- A queue keeps its own time when that is plausible; else the receive time stands in for it.
        SELECT r.*, device.id AS device_id, device.last_ts, at.ts, {BUCKET.format("at.ts")} AS bucket
        FROM device
        CROSS JOIN ROWS FROM (json_to_recordset(p_reports) AS ({ITEM})) WITH ORDINALITY AS r({NAMES}, n)
        CROSS JOIN LATERAL (SELECT CASE
            WHEN r.device_ts >= statement_timestamp() - make_interval(days => p_retention_days)
             AND r.device_ts <= statement_timestamp() + interval '5 minutes' THEN r.device_ts
            ELSE statement_timestamp() END AS ts) AS at
        WHERE device.deleted_at IS NULL
    ), newest AS MATERIALIZED (
        SELECT * FROM report ORDER BY ts DESC, n DESC LIMIT 1
    ), inserted AS (
        -- In the order of buckets, so that two queues never wait for each other's rows.
        INSERT INTO device_heartbeats (device_id, bucket, ts, received_at, {COLUMNS})
        SELECT device_id, bucket, ts, statement_timestamp(), {COLUMNS}
        FROM report
        WHERE ts IS DISTINCT FROM last_ts AND bucket <> ALL (stored)
        ORDER BY bucket, n
        ON CONFLICT (device_id, bucket) DO NOTHING
        RETURNING bucket
    ), advanced AS (
        INSERT INTO device_last_status AS l (device_id, last_ts, last_seen_at, {COLUMNS})
        SELECT device_id, ts, statement_timestamp(), {COLUMNS}
        FROM newest WHERE last_ts IS NULL OR ts > last_ts
        ON CONFLICT (device_id) DO UPDATE
        SET last_ts = excluded.last_ts, last_seen_at = greatest(l.last_seen_at, excluded.last_seen_at), {UPDATES}
        WHERE excluded.last_ts > l.last_ts
        RETURNING device_id
    ), seen AS (
        -- Nothing newer, yet the server heard from the device. A repeat changes nothing, unless the device has been
        -- silent for an interval: then even a repeat (a clock that stands still) is a sign of life.
        UPDATE device_last_status SET last_seen_at = greatest(last_seen_at, statement_timestamp())
        WHERE device_id = (
            SELECT id FROM device
            WHERE (SELECT ts FROM newest) <= last_ts
              AND (EXISTS (SELECT FROM inserted)
                   OR last_seen_at < statement_timestamp() - make_interval(secs => p_interval_seconds)))
    ), confirmed AS (
        -- The first authenticated call makes the token that it used the only one; a newer report may bring a new FCM
        -- token and new facts about the device. Newer than the row itself: a racing report may have changed it since.
        UPDATE devices d SET
            token_id = coalesce(p_token_id, d.token_id),
            prior_token_id = CASE WHEN p_token_id IS NULL THEN d.prior_token_id END,
            confirmed_at = coalesce(d.confirmed_at, CASE WHEN p_token_id IS NOT NULL THEN statement_timestamp() END),
            fcm_token = CASE WHEN {NEWER_FCM} THEN newest.fcm_token ELSE d.fcm_token END,
            fcm_token_at = CASE WHEN {NEWER_FCM} THEN newest.ts ELSE d.fcm_token_at END,
            {FACTS_KEPT}
        FROM device
        LEFT JOIN newest ON true
        WHERE d.id = device.id AND device.deleted_at IS NULL AND {WHO}
          AND ((p_token_id IS NOT NULL AND d.confirmed_at IS NULL)
               OR {NEWER_FCM}
               OR (EXISTS (SELECT FROM advanced) AND ({FACTS_NEW}) IS DISTINCT FROM ({FACTS_OLD})))
    ), answered AS (
        -- What an answer of the device does to its dispatch: see nexmdm.dispatches.COMPLETED.
        UPDATE fcm_dispatches f SET
            state = CASE WHEN f.state IN ('failed', 'cancelled') THEN f.state ELSE 'sent' END,
            lease_until = NULL,
            next_at = NULL,
            secrets = CASE WHEN f.secrets IS NOT NULL THEN '{{}}'::jsonb END,
            completed_at = clock_timestamp(),
            result = 'OK'
        FROM report
        WHERE f.request_id = report.ping_request_id AND f.device_id = report.device_id
          AND f.action = 'ping' AND f.completed_at IS NULL
    )
    SELECT id,
        deleted_at IS NOT NULL,
        ARRAY(SELECT bucket FROM report ORDER BY n),
        ARRAY(SELECT min(n) FROM report JOIN inserted USING (bucket)
              WHERE ts IS DISTINCT FROM last_ts GROUP BY bucket),
        EXISTS (SELECT FROM advanced),
        (SELECT json_agg(p) FROM (
            SELECT request_id, device_id, action, payload, secrets FROM fcm_dispatches
            WHERE device_id = device.id AND state IN ('accepted', 'retry_wait', 'unknown') AND completed_at IS NULL
              AND expires_at > statement_timestamp() AND created_by IS NOT NULL
              AND request_id <> ALL (ARRAY(SELECT ping_request_id FROM report WHERE ping_request_id IS NOT NULL))
            ORDER BY created_at LIMIT 20) AS p)
    FROM device;
END
$function$
"""


def upgrade() -> None:
    op.execute(RECORD_HEARTBEATS)


def downgrade() -> None:
    op.execute("DROP FUNCTION record_heartbeats_v1")
