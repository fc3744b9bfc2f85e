-- Cancels a command, or the dispatches of a batch, that may still be sent and are not being sent now; returns the
-- cancelled request_ids. Zero rows: it is being sent, settled or cancelled, or there is no such command.
WITH cancelled AS (
    UPDATE fcm_dispatches SET
        state = 'cancelled',
        next_at = NULL,
        secrets = CASE WHEN secrets IS NOT NULL THEN '{}'::jsonb END,
        audit = audit || jsonb_build_object('event', 'cancel', 'from', state, 'by', %(actor)s, 'at', clock_timestamp())
    WHERE (request_id = %(request_id)s OR batch_id = %(batch_id)s)
      AND (state IN ('accepted', 'retry_wait', 'unknown')
           -- It would be sent again automatically until it expires.
           OR (state = 'sent' AND delivery = 'until_answered' AND completed_at IS NULL AND expires_at > clock_timestamp()))
    RETURNING request_id, audit -> -1 ->> 'from' AS state
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, before, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'command.cancel', 'command:' || %(name)s,
        (SELECT jsonb_object_agg(state, n) FROM (SELECT state, count(*) AS n FROM cancelled GROUP BY state) AS s),
        jsonb_build_object('cancelled', count(*))
    FROM cancelled HAVING count(*) > 0
)
SELECT request_id FROM cancelled
