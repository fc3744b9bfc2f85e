-- How the version of a package that a device last reported compares with a build: -1 lower or not installed, 0 the same,
-- 1 higher; null if no report names the package. The agent reports only the name of its own version: the version code
-- is that of the build with this name, and an unknown name counts as lower.
--
-- Always returns one row. It returns a table because the planner can inline such a function as joins; a function that
-- returns a value is called, and planned, for each device.
CREATE FUNCTION reported_version_v2(
    p_device_id text, p_package text, p_version_code bigint, p_version_name text, p_agent_package text
) RETURNS TABLE (version integer) LANGUAGE sql STABLE AS $function$
    SELECT CASE
        WHEN NOT a.installed THEN -1
        WHEN a.version_code IS NOT NULL THEN sign(a.version_code - p_version_code)::integer
        WHEN a.version_name IS NOT NULL THEN CASE WHEN a.version_name = p_version_name THEN 0 ELSE -1 END
        WHEN p_package <> p_agent_package OR l.agent_version IS NULL THEN NULL
        WHEN l.agent_version = p_version_name THEN 0
        ELSE coalesce((
            SELECT sign(max(v.version_code) - p_version_code)::integer FROM apk_versions v
            WHERE v.package_name = p_package AND v.version_name = l.agent_version AND v.state = 'published'), -1)
    END
    FROM (SELECT p_device_id AS id) AS d
    LEFT JOIN device_apps a ON a.device_id = d.id AND a.package = p_package
    LEFT JOIN device_last_status l ON l.device_id = d.id
$function$
