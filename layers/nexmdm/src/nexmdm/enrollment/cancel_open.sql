-- A re-enrolled device inherits no commands: cancels those that may still be sent or answered, including those being
-- sent. The new fence prevents a late sender from settling them. Zero rows: there were none.
UPDATE fcm_dispatches SET
    state = 'cancelled',
    fence = fence + 1,
    lease_until = NULL,
    next_at = NULL,
    secrets = CASE WHEN secrets IS NOT NULL THEN '{}'::jsonb END,
    audit = audit || jsonb_build_object('event', 'take-over', 'from', state, 'by', NULL, 'at', clock_timestamp())
WHERE device_id = %(device_id)s
  AND (state IN ('accepted', 'retry_wait', 'sending', 'unknown') OR (state = 'sent' AND completed_at IS NULL))
RETURNING request_id
