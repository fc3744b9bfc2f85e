-- Devices that the server has not heard from for three heartbeat intervals; never heard: since they were enrolled.
SELECT d.id AS device_id, jsonb_build_object('last_seen_at', l.last_seen_at) AS detail
FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL AND coalesce(l.last_seen_at, d.created_at)
    <= statement_timestamp() - 3 * make_interval(secs => %(interval_seconds)s)
