-- The release build of a package that is offered to a device, or null: the current build, or else the one that it
-- replaced, and so on; the first that is published, not paused, and whose rollout reaches the device. Version codes
-- only decrease along this chain. nexmdm/alerts/condition_agent_outdated.sql evaluates it for all devices at once; a
-- test checks that both agree.
CREATE FUNCTION offered_build_v1(p_device_id text, p_package_name text, p_interval_seconds double precision)
RETURNS integer
LANGUAGE sql STABLE
AS $$
WITH RECURSIVE chain AS (
    SELECT v.*, 1 AS place FROM apk_versions v
    WHERE v.package_name = p_package_name AND v.build_type = 'release' AND v.is_current
    UNION ALL
    SELECT v.*, chain.place + 1 FROM chain JOIN apk_versions v ON v.id = chain.replaces_id WHERE chain.place < 100
)
SELECT id FROM chain
WHERE state = 'published' AND paused_at IS NULL
  AND rollout_reaches_v1(id, staged_rollout_percent, rollout_filter, p_device_id, p_interval_seconds)
ORDER BY place LIMIT 1
$$;
