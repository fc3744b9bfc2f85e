-- A device's hours, or days in UTC, in chronological order, from stored heartbeats and from device_history, which
-- summarizes removed ones. An hour that is being removed is in both, but each report in only one of them. Zero rows:
-- there are no reports.
WITH parts AS (
    SELECT hour, reports, last_ts, {columns}
    FROM device_history
    WHERE device_id = %(device_id)s
    UNION ALL
    SELECT date_trunc('hour', ts, 'UTC'), 1, ts, {reported}
    FROM device_heartbeats
    -- A report is less than a day younger than its bucket.
    WHERE device_id = %(device_id)s AND bucket >= %(from)s::timestamptz - interval '1 day'
      AND bucket < %(to)s::timestamptz + interval '1 hour'
)
SELECT date_trunc(%(step)s, hour, 'UTC') AS at, sum(reports)::int8 AS reports, {values}
FROM parts
WHERE hour >= %(from)s AND hour < %(to)s
GROUP BY 1
ORDER BY 1
