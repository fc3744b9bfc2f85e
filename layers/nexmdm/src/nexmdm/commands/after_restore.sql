-- Marks every open dispatch of a database restored from a snapshot as `unknown`, or as `sent` if it is answered,
-- because the database does not know what happened after the snapshot. An until_answered command that was sent ends
-- too, because the device may have answered since. Request_ids are kept until FCM has dropped messages sent just before
-- the restore.
--
-- No fence is reused: otherwise a sender that was suspended during the restore could hold the fence of the next claim
-- and settle that claim with its own response. All fences are increased by more than they can have grown since the
-- snapshot.
WITH open AS (
    SELECT request_id,
        state IN ('accepted', 'retry_wait', 'sending') AS moves,
        state IN ('accepted', 'retry_wait', 'sending')
            OR (delivery = 'until_answered' AND completed_at IS NULL AND state IN ('sent', 'unknown')) AS ends
    FROM fcm_dispatches
), raised AS (
    UPDATE fcm_dispatches f SET
        fence = f.fence + 1000000,
        state = CASE WHEN NOT open.moves THEN f.state WHEN f.completed_at IS NULL THEN 'unknown' ELSE 'sent' END,
        lease_until = NULL,
        next_at = NULL,
        expires_at = CASE WHEN open.ends THEN least(f.expires_at, clock_timestamp()) ELSE f.expires_at END,
        fcm_expires_at = greatest(f.fcm_expires_at, clock_timestamp() + make_interval(secs => %(fcm_ttl_seconds)s)),
        error_msg = CASE WHEN open.moves
            THEN 'The database was restored from a snapshot; the message may have been sent after it was taken.'
            ELSE f.error_msg END,
        audit = CASE WHEN open.ends
            THEN f.audit || jsonb_build_object(
                'event', 'restore', 'by', NULL, 'from', f.state, 'at', clock_timestamp())
            ELSE f.audit END
    FROM open WHERE f.request_id = open.request_id
    RETURNING f.request_id, f.state, open.moves
), moved AS (
    SELECT request_id, state FROM raised WHERE moves
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'command.after_restore', 'commands',
        jsonb_build_object('commands', count(*), 'first', (array_agg(request_id ORDER BY request_id))[:10])
    FROM moved HAVING count(*) > 0
)
SELECT request_id, state FROM moved
