-- A page of the apps that are installed on enrolled devices which match the filter, by package: the number of devices,
-- and at most 50 versions, highest code first. Zero rows: no package is reported after the cursor.
WITH installed AS (
    SELECT a.package, a.version_code, a.version_name, count(*)::integer AS device_count
    FROM device_apps a
    JOIN devices d ON d.id = a.device_id
    LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE a.installed AND d.deleted_at IS NULL
      AND (%(after)s::text IS NULL OR a.package COLLATE "C" > %(after)s)
      AND (%(package)s::text IS NULL OR a.package = %(package)s)
      AND {where}
    GROUP BY a.package, a.version_code, a.version_name
), ranked AS (
    SELECT *, row_number() OVER (
        PARTITION BY package ORDER BY version_code DESC NULLS LAST, version_name COLLATE "C" DESC NULLS LAST) AS place
    FROM installed
)
SELECT package, sum(device_count)::integer AS device_count,
    jsonb_agg(jsonb_build_object(
        'version_name', version_name, 'version_code', version_code, 'device_count', device_count) ORDER BY place)
        FILTER (WHERE place <= 50) AS versions
FROM ranked GROUP BY package ORDER BY package COLLATE "C" LIMIT %(limit)s
