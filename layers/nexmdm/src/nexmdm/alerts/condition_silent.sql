-- Devices that the server has not heard from for three heartbeat intervals; for devices that never reported, since
-- their enrollment.
SELECT d.id AS device_id, jsonb_build_object('last_seen_at', l.last_seen_at) AS detail
FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL AND NOT device_online(coalesce(l.last_seen_at, d.created_at), %(interval_seconds)s)
