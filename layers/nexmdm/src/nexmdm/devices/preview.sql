-- Counts the devices that {where} selects, with the first ten aliases and the hash of the set. Always returns one row.
-- Reads each table once.
WITH selected AS MATERIALIZED (
    SELECT d.id, d.alias FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND {where}
)
SELECT count(*)::integer AS device_count, target_hash(array_agg(id)) AS target_hash,
    ARRAY(SELECT alias FROM selected ORDER BY alias LIMIT 10) AS sample,
    ARRAY(
        SELECT unnest(%(device_ids)s::text[]) AS id EXCEPT SELECT id FROM selected ORDER BY id LIMIT 10
    ) AS missing
FROM selected
