-- Marks dispatches whose lease ended as `unknown`, or as `sent` if the device has answered; never as claimable, because
-- the message may have been sent.
WITH passed AS MATERIALIZED (
    SELECT request_id FROM fcm_dispatches WHERE state = 'sending' AND lease_until < clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
UPDATE fcm_dispatches f SET
    state = CASE WHEN f.completed_at IS NULL THEN 'unknown' ELSE 'sent' END,
    lease_until = NULL,
    fcm_status = CASE WHEN f.completed_at IS NULL THEN 'unknown' ELSE f.fcm_status END,
    error_msg = 'The sender did not come back within its lease; FCM may have the message.'
FROM passed WHERE f.request_id = passed.request_id
RETURNING f.request_id, f.state
