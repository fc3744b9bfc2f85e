-- Writes one row about the devices that {where} selects, for this hour. Zero rows: it already exists. Counts the
-- heartbeats received in the hour before: their buckets limit the partitions that are read, their receive time decides.
WITH fleet AS MATERIALIZED (
    SELECT d.id, l.battery_pct, l.unity_running, device_online(l.last_seen_at, %(interval_seconds)s) AS online
    FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND ({where})
), heard AS (
    SELECT count(*) AS n
    FROM device_heartbeats h
    WHERE h.bucket >= date_trunc('hour', statement_timestamp(), 'UTC') - interval '2 hours'
      AND h.received_at >= date_trunc('hour', statement_timestamp(), 'UTC') - interval '1 hour'
      AND h.received_at < date_trunc('hour', statement_timestamp(), 'UTC')
      AND (%(group)s = '' OR h.device_id IN (SELECT id FROM fleet))
), open AS (
    SELECT a.severity, a.condition FROM device_alerts a
    WHERE a.recovered_at IS NULL AND a.opened_at IS NOT NULL AND a.device_id IN (SELECT id FROM fleet)
)
INSERT INTO fleet_history (hour, grp, devices, online, silent, low_battery, app_down, heartbeats, info, warning, critical)
SELECT date_trunc('hour', statement_timestamp(), 'UTC'), %(group)s,
    count(*), count(*) FILTER (WHERE online), count(*) FILTER (WHERE NOT online),
    (SELECT count(*) FROM open WHERE condition = 'low_battery'),
    (SELECT count(*) FROM open WHERE condition = 'app_down'),
    (SELECT n FROM heard),
    (SELECT count(*) FROM open WHERE severity = 'info'),
    (SELECT count(*) FROM open WHERE severity = 'warning'),
    (SELECT count(*) FROM open WHERE severity = 'critical')
FROM fleet
ON CONFLICT (hour, grp) DO NOTHING
RETURNING 1
