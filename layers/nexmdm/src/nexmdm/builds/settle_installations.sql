-- Ends open installations according to the versions that devices report: `completed` if the device runs the build's
-- version, regardless of its reports on the installation; `unknown` if there was no report on it for %(timeout)s
-- seconds. An unknown installation is still completed if the version is reported within 30 days, unless the device was
-- asked again. Returns one row per build with an installation that ended. Rows locked by other statements are left for
-- the next sweep.
WITH judged AS MATERIALIZED (
    SELECT i.id, runs.version = 0 AS completed
    FROM apk_installations i
    JOIN apk_versions v ON v.id = i.apk_version_id
    JOIN devices d ON d.id = i.device_id AND d.deleted_at IS NULL
    CROSS JOIN LATERAL reported_version_v2(
        i.device_id, v.package_name, v.version_code, v.version_name, %(agent_package)s) AS runs
    WHERE i.status IN ('pending', 'downloading', 'installing', 'unknown')
      AND i.initiated_at >= coalesce(d.taken_over_at, '-infinity')
      AND (i.status <> 'unknown' OR i.initiated_at > statement_timestamp() - interval '30 days')
      AND CASE WHEN runs.version = 0
          THEN i.status <> 'unknown' OR NOT EXISTS (
              SELECT FROM apk_installations later
              WHERE later.device_id = i.device_id AND later.apk_version_id = i.apk_version_id AND later.id > i.id)
          ELSE i.status <> 'unknown' AND greatest(i.initiated_at, i.installing_at, i.claimed_at)
              < statement_timestamp() - make_interval(secs => %(timeout)s) END
    ORDER BY i.id LIMIT %(limit)s
    FOR UPDATE OF i SKIP LOCKED
), moved AS (
    UPDATE apk_installations i SET
        status = CASE WHEN judged.completed THEN 'completed' ELSE 'unknown' END,
        completed_at = CASE WHEN judged.completed THEN clock_timestamp() END
    FROM judged WHERE i.id = judged.id
    RETURNING i.device_id, i.apk_version_id, i.status, i.request_id
), per_build AS (
    SELECT apk_version_id AS build_id, count(*) FILTER (WHERE status = 'completed') AS completed,
        count(*) FILTER (WHERE status = 'unknown') AS unknown
    FROM moved GROUP BY apk_version_id
), counted AS (
    UPDATE apk_versions v SET rollout_completed = v.rollout_completed + per_build.completed
    FROM per_build WHERE v.id = per_build.build_id AND per_build.completed > 0
), settled AS MATERIALIZED (
    SELECT complete_command_v1(request_id, device_id, 'completed', 'the device reports the version') AS first
    FROM moved WHERE status = 'completed' AND request_id IS NOT NULL
), told AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'build.installations_unknown',
        'build:' || build_id, jsonb_build_object('unknown', unknown)
    FROM per_build WHERE unknown > 0
)
SELECT build_id, completed, unknown, (SELECT count(*) FROM settled) AS settled FROM per_build ORDER BY build_id
