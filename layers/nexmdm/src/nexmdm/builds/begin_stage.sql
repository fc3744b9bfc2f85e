-- Begins a stage of a locked build's plan; for the last stage, `end` says that the plan is completed.
UPDATE apk_versions SET staged_rollout_percent = %(percent)s, plan_stage = %(stage)s, plan_stage_at = clock_timestamp(),
    plan_ended_at = CASE WHEN %(end)s::text IS NOT NULL THEN clock_timestamp() END, plan_end = %(end)s,
    audit = audit || jsonb_build_object('event', 'stage', 'by', %(by)s, 'at', clock_timestamp(),
        'percent', %(percent)s::integer, 'stage', %(stage)s::integer + 1)
WHERE id = %(build_id)s
