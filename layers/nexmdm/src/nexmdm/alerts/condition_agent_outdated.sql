-- Devices whose agent is older than the build that they have been offered for at least the threshold, in hours.
-- Evaluates the chain of offered_build_v1 for all devices at once; it ends at the first build that is offered to every
-- device. Agents report a version name, not a code: a published name counts as its newest build, any other as older
-- than all.
WITH RECURSIVE chain AS (
    SELECT v.*, 1 AS place FROM apk_versions v
    WHERE v.package_name = %(agent_package)s AND v.build_type = 'release' AND v.is_current
    UNION ALL
    SELECT v.*, chain.place + 1 FROM chain JOIN apk_versions v ON v.id = chain.replaces_id
    WHERE chain.place < 100
      AND NOT (chain.state = 'published' AND chain.paused_at IS NULL AND chain.staged_rollout_percent = 100
          AND chain.rollout_filter IS NULL)
), offered AS MATERIALIZED (
    SELECT id, place, version_name, version_code, staged_rollout_percent, rollout_filter,
        -- The last change of the rollout, from which on its cohort was offered the build.
        coalesce((audit -> -1 ->> 'at')::timestamptz, promoted_at)
            <= statement_timestamp() - make_interval(secs => 3600 * %(threshold)s) AS due
    FROM chain WHERE state = 'published' AND paused_at IS NULL
), named AS MATERIALIZED (
    SELECT version_name, max(version_code) AS version_code FROM apk_versions
    WHERE package_name = %(agent_package)s AND state IN ('published', 'adopted') GROUP BY version_name
), older AS MATERIALIZED (
    -- The offered build is computed only for these devices, because it needs a hash.
    SELECT d.id, l.agent_version, coalesce(n.version_code, -1) AS version_code
    FROM devices d JOIN device_last_status l ON l.device_id = d.id
    LEFT JOIN named n ON n.version_name = l.agent_version
    WHERE d.deleted_at IS NULL AND l.agent_version IS NOT NULL
      AND coalesce(n.version_code, -1) < (SELECT max(version_code) FROM offered WHERE due)
)
SELECT d.id AS device_id, jsonb_build_object('agent_version', d.agent_version, 'offered', o.version_name) AS detail
FROM older d CROSS JOIN LATERAL (
    SELECT version_name, version_code, due FROM offered
    WHERE rollout_reaches_v1(id, staged_rollout_percent, rollout_filter, d.id, %(interval_seconds)s)
    ORDER BY place LIMIT 1
) AS o
WHERE o.due AND d.version_code < o.version_code
