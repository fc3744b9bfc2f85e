-- The labels in use on enrolled devices: each key with the number of devices that have it, and its values, most
-- frequent first. At most %(keys)s keys, with %(values)s values each. Reads the devices once.
WITH counted AS MATERIALIZED (
    SELECT pair.key, pair.value, count(*)::integer AS device_count
    FROM devices d CROSS JOIN LATERAL jsonb_each_text(d.labels) AS pair
    WHERE d.deleted_at IS NULL
    GROUP BY pair.key, pair.value
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY key ORDER BY device_count DESC, value COLLATE "C") AS place FROM counted
)
SELECT key, sum(device_count)::integer AS device_count,
    jsonb_agg(jsonb_build_object('value', value, 'device_count', device_count) ORDER BY place)
        FILTER (WHERE place <= %(values)s) AS values
FROM ranked GROUP BY key ORDER BY key COLLATE "C" LIMIT %(keys)s
