-- Cancel a command, or the members of a batch, as far as they may still be sent and are not being sent now; the
-- request_ids that were. Zero rows mean: it is being sent, settled, cancelled, or there is none.
UPDATE fcm_dispatches SET
    state = 'cancelled',
    next_at = NULL,
    secrets = CASE WHEN secrets IS NOT NULL THEN '{}'::jsonb END,
    audit = audit || jsonb_build_object('event', 'cancel', 'from', state, 'by', %(by)s, 'at', clock_timestamp())
WHERE (request_id = %(request_id)s OR batch_id = %(batch_id)s)
  AND (state IN ('accepted', 'retry_wait', 'unknown')
       -- It would be sent again by itself until its life is over.
       OR (state = 'sent' AND delivery = 'until_answered' AND completed_at IS NULL AND expires_at > clock_timestamp()))
RETURNING request_id
