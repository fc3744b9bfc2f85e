-- The rules whose quiet hours are now, in their own time zones. Zero rows: none. Hours that end before they begin go over
-- midnight; hours that begin and end at the same time are the whole day.
SELECT name FROM (
    SELECT name, (clock_timestamp() AT TIME ZONE (quiet_hours ->> 'timezone'))::time AS now,
        (quiet_hours ->> 'from')::time AS begins, (quiet_hours ->> 'to')::time AS ends
    FROM alert_rules WHERE quiet_hours IS NOT NULL
) AS quiet
WHERE CASE WHEN begins < ends THEN now >= begins AND now < ends ELSE now >= begins OR now < ends END
