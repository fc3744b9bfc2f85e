-- Whether a rollout reaches a device: it is in the cohort of the percentage, and matches the filter. A caller that is
-- not a device yet (null) is reached by rollouts to all devices.
CREATE FUNCTION rollout_reaches_v1(
    p_build_id integer, p_percent integer, p_filter jsonb, p_device_id text, p_interval_seconds double precision
) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT coalesce(rollout_bucket_v1(p_build_id, p_device_id), 99) < p_percent
    AND (p_filter IS NULL OR device_matches(p_device_id, p_filter, p_interval_seconds))
$$;
