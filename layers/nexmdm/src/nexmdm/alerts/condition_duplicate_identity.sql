-- Devices that seem to be two phones: one device token used in turn by two within the last day, or one hardware id under
-- two aliases (a cloned image, a restored backup).
SELECT d.id AS device_id,
    jsonb_build_object('token_shared_at', CASE WHEN shared THEN l.token_shared_at END, 'same_hardware', twin.alias)
        AS detail
FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
CROSS JOIN LATERAL (
    SELECT coalesce(l.token_shared_at > statement_timestamp() - interval '1 day', false) AS shared
) AS token
LEFT JOIN LATERAL (
    SELECT o.alias FROM devices o
    WHERE o.hardware_id = d.hardware_id AND o.id <> d.id AND o.deleted_at IS NULL ORDER BY o.alias LIMIT 1
) AS twin ON d.hardware_id IS NOT NULL
WHERE d.deleted_at IS NULL AND (shared OR twin.alias IS NOT NULL)
