-- A device's hours, or days in UTC, in order of time: reports that are there, and what device_history keeps of those that
-- are gone. An hour in the middle of being removed is in both, each report in one of them. Zero rows: no report.
WITH parts AS (
    SELECT hour, reports, last_ts, {columns}
    FROM device_history
    WHERE device_id = %(device_id)s
    UNION ALL
    SELECT date_trunc('hour', ts, 'UTC'), 1, ts, {reported}
    FROM device_heartbeats
    -- A report is younger than its bucket by less than a day.
    WHERE device_id = %(device_id)s AND bucket >= %(from)s::timestamptz - interval '1 day'
      AND bucket < %(to)s::timestamptz + interval '1 hour'
)
SELECT date_trunc(%(step)s, hour, 'UTC') AS at, sum(reports)::int8 AS reports, {values}
FROM parts
WHERE hour >= %(from)s AND hour < %(to)s
GROUP BY 1
ORDER BY 1
