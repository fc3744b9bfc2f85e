-- Record what became of POSTs, each by the holder of its fence; the new state of each that still had it.
-- A row that is missing from the answer lost its fence: another holds the dispatch, or it was settled.
--
-- A dispatch that the device has completed meanwhile is `sent`, whatever FCM answered: an acknowledgement that overtook
-- the answer has moved it there already, and the answer is still worth keeping. Secrets are wiped once the dispatch
-- cannot be sent again by itself: at `sent`, unless it is until_answered and its life goes on, and at `failed`.
WITH answer AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(answers)s) AS given(
        request_id text, fence int, jitter float8, outcome text, fcm_status text, fcm_message_id text, http_code int,
        latency_ms int, error_msg text, response_json text, retry_after float8, unregistered_token text)
), settled AS (
    UPDATE fcm_dispatches f SET
        state = CASE WHEN f.completed_at IS NOT NULL THEN 'sent' ELSE a.outcome END,
        lease_until = NULL,
        -- Certainly not accepted: attempts less these are the messages that FCM has or may have.
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
    WHERE f.request_id = a.request_id AND f.fence = a.fence
      AND (f.state IN ('sending', 'unknown')
           -- Its own answer is not there yet: the statement may run twice, and counts once.
           OR (f.state = 'sent' AND f.completed_at IS NOT NULL AND f.http_code IS NULL
               AND f.fcm_status <> a.fcm_status))
    RETURNING f.request_id, f.state, f.device_id, a.unregistered_token
), forgotten AS (
    -- Only if it is still the token that was sent to: the device may have reported a new one meanwhile.
    -- It is kept aside, so that a heartbeat which still reports it does not bring it back.
    UPDATE devices d SET unregistered_fcm_token = d.fcm_token, fcm_token = NULL FROM settled
    WHERE d.id = settled.device_id AND d.fcm_token = settled.unregistered_token
)
SELECT request_id, state FROM settled
