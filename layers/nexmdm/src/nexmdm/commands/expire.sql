-- Marks unsent dispatches whose time to live has ended as `expired` and wipes their secrets. An until_answered command
-- that was sent keeps its state, and its secrets are wiped, because it is not sent again.
WITH over AS MATERIALIZED (
    SELECT request_id FROM fcm_dispatches
    WHERE state IN ('accepted', 'retry_wait') AND expires_at <= clock_timestamp()
    FOR UPDATE SKIP LOCKED
), unanswered AS MATERIALIZED (
    SELECT request_id FROM fcm_dispatches
    WHERE delivery = 'until_answered' AND completed_at IS NULL AND state IN ('sent', 'unknown')
      AND expires_at <= clock_timestamp() AND secrets <> '{}'::jsonb
    FOR UPDATE SKIP LOCKED
), wiped AS (
    UPDATE fcm_dispatches f SET secrets = '{}'::jsonb FROM unanswered WHERE f.request_id = unanswered.request_id
), moved AS (
    UPDATE fcm_dispatches f SET
        state = 'expired',
        next_at = NULL,
        secrets = CASE WHEN f.secrets IS NOT NULL THEN '{}'::jsonb END
    FROM over WHERE f.request_id = over.request_id
    RETURNING f.request_id, f.state
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'command.expire', 'commands',
        jsonb_build_object('commands', count(*), 'first', (array_agg(request_id ORDER BY request_id))[:10])
    FROM moved HAVING count(*) > 0
)
SELECT request_id, state FROM moved
