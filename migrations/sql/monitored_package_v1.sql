-- The package of the app that is monitored on a device: the device's own, or else that of the first group by name (in
-- byte order) that names one and that the device belongs to now, or else the default. All code that needs a device's
-- monitored app uses this function.
CREATE FUNCTION monitored_package_v1(
    p_device_id text, p_own text, p_default text, p_interval_seconds double precision
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE COST 1000
AS $$
SELECT coalesce(p_own, (
    SELECT g.monitored_package FROM device_groups g
    WHERE g.monitored_package IS NOT NULL AND device_matches(p_device_id, g.filter, p_interval_seconds)
    ORDER BY g.name COLLATE "C" LIMIT 1
), p_default)
$$;
