-- Records the results of POSTs, each by the holder of its fence; returns the new state of each that still had it. A
-- missing row means that the fence was lost: another sender holds the dispatch, or it was settled.
--
-- A dispatch that the device has completed in the meantime is `sent`, regardless of FCM's response: an acknowledgement
-- that overtook the response has already moved it there, and the response is still recorded. Secrets are wiped once the
-- dispatch cannot be sent again automatically: at `failed`, and at `sent` unless it is until_answered and has not
-- expired.
WITH answer AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(answers)s) AS given(
        request_id text, fence int, jitter float8, outcome text, fcm_status text, fcm_message_id text, http_code int,
        latency_ms int, error_msg text, response_json text, retry_after float8, unregistered_token text)
), held AS MATERIALIZED (
    -- Locks the devices before their dispatches, as an enrollment does.
    SELECT d.id FROM devices d JOIN answer a ON a.unregistered_token = d.fcm_token
    ORDER BY d.id FOR NO KEY UPDATE OF d
), settled AS (
    UPDATE fcm_dispatches f SET
        state = CASE WHEN f.completed_at IS NOT NULL THEN 'sent' ELSE a.outcome END,
        lease_until = NULL,
        -- Certainly not accepted: attempts minus these are the messages that FCM has or may have.
        refused = f.refused + (a.outcome IN ('failed', 'retry_wait'))::int,
        next_at = CASE WHEN f.completed_at IS NULL AND a.outcome = 'retry_wait'
            THEN clock_timestamp() + a.jitter * make_interval(
                secs => coalesce(a.retry_after, least(5 * 2 ^ least(f.attempts - 1, 6), 300))) END,
        fcm_status = a.fcm_status,
        fcm_message_id = coalesce(a.fcm_message_id, f.fcm_message_id),
        http_code = a.http_code,
        latency_ms = a.latency_ms,
        error_msg = a.error_msg,
        response_json = a.response_json,
        secrets = CASE
            WHEN f.secrets IS NULL THEN NULL
            WHEN f.completed_at IS NOT NULL OR a.outcome = 'failed' THEN '{}'::jsonb
            WHEN a.outcome = 'sent' AND NOT (f.delivery = 'until_answered' AND f.expires_at > clock_timestamp())
                THEN '{}'::jsonb
            ELSE f.secrets END
    FROM answer a
    WHERE (SELECT count(*) FROM held) >= 0 AND f.request_id = a.request_id AND f.fence = a.fence
      AND (f.state IN ('sending', 'unknown')
           -- Only if this response is not recorded yet: the statement may run twice, but must count once.
           OR (f.state = 'sent' AND f.completed_at IS NOT NULL AND f.http_code IS NULL
               AND f.fcm_status <> a.fcm_status))
    RETURNING f.request_id, f.state, f.device_id, a.unregistered_token
), forgotten AS (
    -- Only if it is still the token of the message: the device may have reported a new one in the meantime.
    -- The token is remembered, so that a heartbeat which still reports it does not restore it.
    UPDATE devices d SET unregistered_fcm_token = d.fcm_token, fcm_token = NULL FROM settled
    WHERE d.id = settled.device_id AND d.fcm_token = settled.unregistered_token
)
SELECT request_id, state FROM settled
