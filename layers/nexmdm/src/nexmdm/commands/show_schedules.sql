-- Schedules by name: one, or those after a name. With the latest run and the states of its commands.
SELECT s.schedule_id, s.name, s.cron, s.at, s.timezone, s.filter, s.action, s.params, s.ttl_seconds, s.delivery,
    s.enabled, s.next_run_at, s.created_at, s.created_by, s.updated_at, clock_timestamp() AS now,
    (SELECT jsonb_build_object('scheduled_for', r.scheduled_for, 'status', r.status, 'request_id', r.request_id,
            'states', (SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (
                SELECT state, count(*) AS n FROM fcm_dispatches WHERE batch_id = r.request_id GROUP BY state) AS c))
     FROM schedule_runs r WHERE r.schedule_id = s.schedule_id ORDER BY r.scheduled_for DESC LIMIT 1) AS last_run
FROM schedules s
WHERE (%(name)s IS NULL OR s.name = %(name)s) AND (%(after)s IS NULL OR s.name > %(after)s)
ORDER BY s.name LIMIT %(limit)s
