-- Every dispatch that is open in a database restored from a snapshot becomes `unknown`, or `sent` when it is answered:
-- what became of it after the snapshot is not in here. Its key stays until FCM has dropped what was sent just before
-- the restore.
WITH moved AS (
    UPDATE fcm_dispatches f SET
        state = CASE WHEN f.completed_at IS NULL THEN 'unknown' ELSE 'sent' END,
        lease_until = NULL,
        next_at = NULL,
        expires_at = least(f.expires_at, clock_timestamp()),
        fcm_expires_at = greatest(f.fcm_expires_at, clock_timestamp() + make_interval(secs => %(fcm_ttl_seconds)s)),
        error_msg = 'The database was restored from a snapshot; the message may have been sent after it was taken.',
        audit = f.audit || jsonb_build_object('event', 'restore', 'by', NULL, 'from', f.state, 'at', clock_timestamp())
    WHERE f.state IN ('accepted', 'retry_wait', 'sending')
    RETURNING f.request_id, f.state
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'command.after_restore', 'commands',
        jsonb_build_object('commands', count(*), 'first', (array_agg(request_id ORDER BY request_id))[:10])
    FROM moved HAVING count(*) > 0
)
SELECT request_id, state FROM moved
