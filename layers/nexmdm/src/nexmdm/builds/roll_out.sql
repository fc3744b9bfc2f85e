-- Offers the current build to a percentage of the devices that its filter selects, unless these differ from the
-- preview. No row: the build is not current. `agreed` false: nothing was changed. The devices are counted only if a
-- hash is expected. An active plan ends, because the percentage was set by hand.
WITH held AS MATERIALIZED (
    SELECT id, staged_rollout_percent, rollout_filter, plan IS NOT NULL AND plan_ended_at IS NULL AS planned
    FROM apk_versions WHERE id = %(build_id)s AND is_current FOR UPDATE
), selected AS MATERIALIZED (
    SELECT d.id FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND %(expect_target_hash)s::text IS NOT NULL AND {where}
), counted AS MATERIALIZED (
    SELECT count(*)::integer AS device_count, target_hash(array_agg(id)) AS target_hash FROM selected
), target AS MATERIALIZED (
    SELECT *, coalesce(%(expect_target_hash)s = target_hash, true) AS agreed FROM counted
), changed AS (
    UPDATE apk_versions v SET staged_rollout_percent = %(percent)s, rollout_filter = %(filter)s::jsonb,
        plan_ended_at = CASE WHEN v.plan IS NOT NULL THEN coalesce(v.plan_ended_at, clock_timestamp()) END,
        plan_end = CASE WHEN v.plan IS NOT NULL THEN coalesce(v.plan_end, 'a percentage set by hand') END,
        audit = audit || jsonb_strip_nulls(jsonb_build_object('event', 'rollout', 'by', %(by)s, 'at', clock_timestamp(),
            'percent', %(percent)s::integer, 'filter', %(filter)s::jsonb - 'requirements'))
    FROM held CROSS JOIN target
    WHERE v.id = held.id AND target.agreed
      AND (held.planned
        OR (held.staged_rollout_percent, held.rollout_filter) IS DISTINCT FROM (%(percent)s, %(filter)s::jsonb))
    RETURNING v.id
)
SELECT held.staged_rollout_percent AS was, held.rollout_filter AS filter_was, held.planned, target.*,
    EXISTS (SELECT FROM changed) AS changed
FROM held CROSS JOIN target
