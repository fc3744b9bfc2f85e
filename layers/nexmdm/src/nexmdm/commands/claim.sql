-- Claims dispatches: only the caller may send each of them, once, with a new fence and until its lease ends. Committed
-- before any byte is sent. Zero rows: nothing is due, or another sender was first; the caller must stop.
--
-- There are three kinds of claims; a null parameter disables the last, and %(repeats)s the second:
--   due      accepted and retry_wait dispatches that are due: all, those of one batch, or one by its request_id
--   repeat   until_answered dispatches, sent or unknown, that FCM can no longer deliver, 60 s after the device's first
--            report since then: answers that the device had queued arrive just after that report
--   resend   an operator's resend, once per key
--
-- None claims the installation of a paused build: the device could not download it. The sweep sends it after a resume.
WITH paused AS MATERIALIZED (
    SELECT id::text FROM apk_versions WHERE paused_at IS NOT NULL
), due AS MATERIALIZED (
    SELECT f.request_id FROM fcm_dispatches f JOIN devices d ON d.id = f.device_id
    WHERE %(resend)s IS NULL AND f.state IN ('accepted', 'retry_wait') AND f.completed_at IS NULL
      AND coalesce(f.next_at, f.created_at) <= clock_timestamp() AND f.expires_at > clock_timestamp()
      AND d.fcm_token IS NOT NULL AND d.deleted_at IS NULL
      AND (f.action <> 'install_apk' OR coalesce(f.payload ->> 'apk_id', '') NOT IN (SELECT id FROM paused))
      AND (%(request_id)s IS NULL OR f.request_id = %(request_id)s)
      AND (%(batch_id)s IS NULL OR f.batch_id = %(batch_id)s)
    ORDER BY coalesce(f.next_at, f.lease_until, f.created_at)
    LIMIT %(limit)s
    FOR UPDATE OF f SKIP LOCKED
), repeat AS MATERIALIZED (
    SELECT f.request_id, f.expires_at,
        jsonb_build_object('event', 'repeat', 'from', f.state, 'by', NULL, 'at', clock_timestamp()) AS entry
    FROM fcm_dispatches f
    JOIN devices d ON d.id = f.device_id
    JOIN device_last_status l ON l.device_id = f.device_id
    WHERE %(repeats)s AND f.delivery = 'until_answered' AND f.completed_at IS NULL
      AND f.state IN ('sent', 'unknown') AND f.expires_at > clock_timestamp() AND f.created_by IS NOT NULL
      AND f.secrets IS DISTINCT FROM '{}'::jsonb
      AND d.fcm_token IS NOT NULL AND d.deleted_at IS NULL
      AND (f.action <> 'install_apk' OR coalesce(f.payload ->> 'apk_id', '') NOT IN (SELECT id FROM paused))
      AND f.fcm_expires_at < l.last_seen_at
      AND (l.last_seen_at <= clock_timestamp() - interval '60 seconds'
           -- For a device that reports every few seconds the first report counts, not the latest.
           OR EXISTS (SELECT FROM device_heartbeats h
                      WHERE h.device_id = f.device_id AND h.received_at > f.fcm_expires_at
                        AND h.received_at <= clock_timestamp() - interval '60 seconds'))
    ORDER BY f.expires_at
    LIMIT greatest(%(limit)s - (SELECT count(*) FROM due), 0)
    FOR UPDATE OF f SKIP LOCKED
), resend AS MATERIALIZED (
    SELECT f.request_id, clock_timestamp() + make_interval(secs => %(ttl_seconds)s) AS expires_at,
        jsonb_build_object('event', 'resend', 'from', f.state, 'by', %(actor)s, 'reason', %(reason)s,
                           'at', clock_timestamp(), 'key', %(key)s) AS entry
    FROM fcm_dispatches f JOIN devices d ON d.id = f.device_id
    WHERE f.request_id = %(resend)s AND f.state IN ('unknown', 'failed', 'expired', 'sent')
      AND f.completed_at IS NULL
      AND f.secrets IS DISTINCT FROM '{}'::jsonb
      -- Without created_by it was sent by other code or by an old server, and its parameters are not known.
      AND f.created_by IS NOT NULL
      AND (%(key)s IS NULL OR NOT f.audit @> jsonb_build_array(jsonb_build_object('key', %(key)s)))
      AND d.fcm_token IS NOT NULL AND d.deleted_at IS NULL
      AND (f.action <> 'install_apk' OR coalesce(f.payload ->> 'apk_id', '') NOT IN (SELECT id FROM paused))
    FOR UPDATE OF f
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, before, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'command.resend', 'command:' || request_id,
        jsonb_build_object('state', entry ->> 'from'),
        jsonb_build_object('reason', %(reason)s, 'ttl_seconds', %(ttl_seconds)s)
    FROM resend
), chosen AS (
    SELECT request_id, NULL::timestamptz AS expires_at, '[]'::jsonb AS entry FROM due
    UNION ALL SELECT request_id, expires_at, entry FROM repeat
    UNION ALL SELECT request_id, expires_at, entry FROM resend
)
UPDATE fcm_dispatches f SET
    state = 'sending',
    fence = f.fence + 1,
    attempts = f.attempts + 1,
    retries = f.attempts,
    lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
    next_at = NULL,
    sent_at = clock_timestamp(),
    expires_at = coalesce(chosen.expires_at, f.expires_at),
    audit = f.audit || chosen.entry,
    -- Clears the response to the previous attempt.
    fcm_status = 'pending',
    http_code = NULL,
    error_msg = NULL,
    response_json = NULL,
    -- The time until which FCM may still deliver this message, regardless of its response; retention and repeats wait
    -- for it.
    fcm_expires_at = clock_timestamp() + make_interval(secs => %(lease_seconds)s + %(fcm_ttl_seconds)s)
FROM chosen, devices d
WHERE f.request_id = chosen.request_id AND d.id = f.device_id
RETURNING f.request_id, f.device_id, f.action, f.payload, f.secrets, f.fence, f.attempts, d.fcm_token,
    extract(epoch FROM f.expires_at - clock_timestamp())::float8 AS seconds_left
