-- The points of one group (the empty name: the whole fleet) by hour, or by day in UTC. Zero rows: nothing was recorded.
SELECT date_trunc(%(step)s, hour, 'UTC') AS at,
    round(avg(devices), 1)::float8 AS devices, round(avg(online), 1)::float8 AS online,
    round(avg(silent), 1)::float8 AS silent, round(avg(low_battery), 1)::float8 AS low_battery,
    round(avg(app_down), 1)::float8 AS app_down, sum(heartbeats)::int8 AS heartbeats,
    round(avg(info), 1)::float8 AS info, round(avg(warning), 1)::float8 AS warning,
    round(avg(critical), 1)::float8 AS critical
FROM fleet_history
WHERE grp = %(group)s AND hour >= %(from)s AND hour < %(to)s
GROUP BY 1
ORDER BY 1
