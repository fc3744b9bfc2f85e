-- Locks a build with an active plan and returns what decides about the next stage: the database's clock, and how many
-- of the devices that were asked since the plan was made have completed. A device that was asked again counts once,
-- with its last answer. Deleted devices and requests from before a takeover do not count. No row: another sweep holds
-- the build, or its plan is not active.
SELECT v.id AS build_id, v.package_name, v.version_name, v.version_code, v.build_type, v.file_size, v.plan,
    v.plan_stage, v.plan_stage_at, v.staged_rollout_percent, clock_timestamp() AS now,
    last.asked, last.completed
FROM apk_versions v
CROSS JOIN LATERAL (
    SELECT count(*) AS asked, count(*) FILTER (WHERE status = 'completed') AS completed FROM (
        SELECT DISTINCT ON (i.device_id) i.status
        FROM apk_installations i JOIN devices d ON d.id = i.device_id AND d.deleted_at IS NULL
        WHERE i.apk_version_id = v.id
          AND i.initiated_at >= greatest((v.plan ->> 'made_at')::timestamptz, d.taken_over_at)
        ORDER BY i.device_id, i.id DESC) AS each_device) AS last
WHERE v.id = %(build_id)s AND v.plan IS NOT NULL AND v.plan_ended_at IS NULL AND v.is_current AND v.paused_at IS NULL
FOR UPDATE OF v SKIP LOCKED
