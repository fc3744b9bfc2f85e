-- The rule that a device is online: the server heard from it within three heartbeat intervals. Never NULL: a device
-- that never reported is offline. It is a single expression, so that the planner can inline it and use the index on
-- last_seen_at. For devices that never reported, the watch passes the time of enrollment.
CREATE FUNCTION device_online(last_seen_at timestamptz, interval_seconds double precision) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT last_seen_at IS NOT NULL
        AND last_seen_at > statement_timestamp() - 3 * make_interval(secs => interval_seconds)
$$;
