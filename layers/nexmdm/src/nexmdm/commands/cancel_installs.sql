-- Cancels the install_apk commands of a build that are not sent yet; returns their request_ids. A command that another
-- statement holds is being sent, cancelled or expired at this moment.
WITH waiting AS MATERIALIZED (
    SELECT request_id FROM fcm_dispatches
    WHERE state IN ('accepted', 'retry_wait') AND action = 'install_apk' AND payload ->> 'apk_id' = %(build_id)s
    FOR UPDATE SKIP LOCKED
)
UPDATE fcm_dispatches f SET
    state = 'cancelled',
    next_at = NULL,
    secrets = CASE WHEN f.secrets IS NOT NULL THEN '{}'::jsonb END,
    audit = f.audit || jsonb_build_object('event', 'cancel', 'from', f.state, 'by', %(by)s, 'at', clock_timestamp(),
        'reason', 'the build was rolled back')
FROM waiting WHERE f.request_id = waiting.request_id
RETURNING f.request_id
