-- Locks a build whose plan goes on, with what decides over the next stage: the database's clock, and how many of those
-- who were asked since the plan was made have completed. No row: another sweep holds it, or the plan does not go on.
SELECT v.id AS build_id, v.package_name, v.version_name, v.version_code, v.build_type, v.file_size, v.plan, v.plan_stage,
    v.plan_stage_at, v.staged_rollout_percent, clock_timestamp() AS now,
    (SELECT count(*) FROM apk_installations i
     WHERE i.apk_version_id = v.id AND i.initiated_at >= (v.plan ->> 'made_at')::timestamptz) AS asked,
    (SELECT count(*) FROM apk_installations i
     WHERE i.apk_version_id = v.id AND i.initiated_at >= (v.plan ->> 'made_at')::timestamptz
       AND i.status = 'completed') AS completed
FROM apk_versions v
WHERE v.id = %(build_id)s AND v.plan IS NOT NULL AND v.plan_ended_at IS NULL AND v.is_current AND v.paused_at IS NULL
FOR UPDATE OF v SKIP LOCKED
