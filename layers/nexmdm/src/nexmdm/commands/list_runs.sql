-- The runs of a schedule, newest first, with the states of their commands, as long as these are kept.
SELECT r.scheduled_for, r.status, r.request_id,
    (SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (
        SELECT state, count(*) AS n FROM fcm_dispatches WHERE batch_id = r.request_id GROUP BY state) AS c) AS states
FROM schedule_runs r
WHERE r.schedule_id = %(id)s AND (%(after)s::timestamptz IS NULL OR r.scheduled_for < %(after)s::timestamptz)
ORDER BY r.scheduled_for DESC LIMIT %(limit)s
