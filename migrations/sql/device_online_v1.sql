-- The one rule of when a device is online: the server heard from it within three heartbeat intervals. Never NULL: a
-- device that never reported is offline. It is one expression, so that the planner puts it into the query and can use
-- the index on last_seen_at. The watch asks it of the time of enrollment where nothing was heard yet.
CREATE FUNCTION device_online(last_seen_at timestamptz, interval_seconds double precision) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT last_seen_at IS NOT NULL
        AND last_seen_at > statement_timestamp() - 3 * make_interval(secs => interval_seconds)
$$;
