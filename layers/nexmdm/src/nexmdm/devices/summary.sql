-- Counts over the enrolled devices that {where} selects. Always returns one row; reads each table once.
WITH fleet AS MATERIALIZED (
    SELECT d.id, d.is_device_owner, l.status, l.agent_version, l.battery_pct, l.unity_running,
        device_online(l.last_seen_at, %(interval_seconds)s) AS online
    FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND {where}
)
SELECT count(*) AS devices,
    count(*) FILTER (WHERE online) AS online,
    count(*) FILTER (WHERE NOT online) AS silent,
    count(*) FILTER (WHERE battery_pct < %(low_battery_pct)s) AS low_battery,
    count(*) FILTER (WHERE unity_running IS FALSE) AS unity_down,
    count(*) FILTER (WHERE is_device_owner) AS device_owners,
    (SELECT coalesce(json_object_agg(status, n), '{}') FROM (
        SELECT coalesce(status, 'never') AS status, count(*) AS n FROM fleet GROUP BY 1) AS s) AS by_status,
    (SELECT coalesce(json_object_agg(agent_version, n), '{}') FROM (
        SELECT coalesce(agent_version, 'unknown') AS agent_version, count(*) AS n FROM fleet GROUP BY 1) AS v
    ) AS by_agent_version,
    (SELECT count(*) FROM device_alerts a JOIN fleet ON fleet.id = a.device_id WHERE a.recovered_at IS NULL) AS alerts
FROM fleet
