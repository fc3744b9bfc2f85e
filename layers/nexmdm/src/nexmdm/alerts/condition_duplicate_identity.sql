-- Devices that seem to be two phones: one device token used alternately by two phones within the last day, or one
-- hardware id under two aliases (a cloned image, a restored backup). Duplicate hardware ids are found for all devices
-- at once, and only their devices are looked up; a look-up per device costs several times as much.
WITH shared AS (
    SELECT device_id, token_shared_at FROM device_last_status
    WHERE token_shared_at > statement_timestamp() - interval '1 day'
), twins AS (
    SELECT d.id AS device_id, other.alias
    FROM (
        SELECT hardware_id FROM devices WHERE hardware_id IS NOT NULL AND deleted_at IS NULL
        GROUP BY hardware_id HAVING count(*) > 1
    ) AS given
    JOIN devices d ON d.hardware_id = given.hardware_id AND d.deleted_at IS NULL
    CROSS JOIN LATERAL (
        SELECT o.alias FROM devices o
        WHERE o.hardware_id = d.hardware_id AND o.id <> d.id AND o.deleted_at IS NULL ORDER BY o.alias LIMIT 1
    ) AS other
)
SELECT d.id AS device_id,
    jsonb_build_object('token_shared_at', shared.token_shared_at, 'same_hardware', twins.alias) AS detail
FROM shared FULL JOIN twins ON twins.device_id = shared.device_id
JOIN devices d ON d.id = coalesce(shared.device_id, twins.device_id) AND d.deleted_at IS NULL
