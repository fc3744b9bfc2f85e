-- Checks the history of every dispatch against the state machine: how many were checked, how many violate which rule
-- first, and the oldest violation. Always returns one row. The rules are those of `audited` in model/dispatch.pml,
-- which holds in every state that the model can reach, and rules about time.
--
-- Rows of an adopted database are exempt: created_by is null and there was never a claim. The rule about attempts needs
-- `refused`, which is null for commands accepted by a release without that column.
WITH history AS (
    SELECT f.*,
        created_by IS NULL AND attempts = 0 AS exempt,
        CASE WHEN audit = '[]' THEN 0
             ELSE jsonb_array_length(jsonb_path_query_array(audit, '$[*] ? (@.event == "resend")')) END AS resends,
        CASE WHEN audit = '[]' THEN 0
             ELSE jsonb_array_length(jsonb_path_query_array(audit, '$[*] ? (@.event == "repeat")')) END AS repeats,
        CASE WHEN audit = '[]' THEN false
             ELSE audit @> '[{"event": "restore"}]' END AS restored,
        CASE WHEN audit = '[]' THEN false
             ELSE audit @> '[{"event": "cancel"}]' OR audit @> '[{"event": "take-over"}]' END AS withdrawn,
        audit <> '[]' AND completed_at IS NOT NULL AND EXISTS (
            SELECT FROM jsonb_array_elements(audit) AS entry
            WHERE entry ->> 'event' IN ('resend', 'repeat') AND (entry ->> 'at')::timestamptz > completed_at
        ) AS sent_when_answered
    FROM fcm_dispatches f
    WHERE %(since)s::timestamptz IS NULL OR created_at >= %(since)s
), judged AS (
    SELECT request_id, device_id, state, created_at, exempt, CASE
        WHEN exempt THEN NULL
        WHEN attempts - refused > 1 + resends + repeats THEN 'sent_at_most_once'
        WHEN sent_when_answered THEN 'answered_is_not_sent_again'
        WHEN repeats > 0 AND delivery <> 'until_answered' THEN 'repeated_only_when_chosen'
        WHEN attempts > fence THEN 'every_claim_has_a_fence'
        WHEN state = 'accepted' AND (attempts > 0 OR completed_at IS NOT NULL) THEN 'accepted_was_not_sent'
        WHEN state = 'sending' AND (attempts = 0 OR lease_until IS NULL OR completed_at IS NOT NULL)
            THEN 'sending_has_a_lease'
        WHEN state = 'retry_wait' AND (refused = 0 OR next_at IS NULL OR completed_at IS NOT NULL)
            THEN 'retry_was_refused'
        WHEN state = 'failed' AND refused = 0 THEN 'failed_was_refused'
        WHEN state = 'sent' AND attempts = 0 AND completed_at IS NULL THEN 'sent_was_sent_or_answered'
        WHEN state = 'unknown' AND (completed_at IS NOT NULL OR (attempts = 0 AND NOT restored))
            THEN 'unknown_was_sent_or_restored'
        WHEN state = 'cancelled' AND NOT withdrawn THEN 'cancelled_by_someone'
        WHEN sent_at < created_at OR completed_at < created_at THEN 'settled_after_accepted'
        WHEN completed_at IS NULL AND result IS NOT NULL THEN 'result_has_an_answer'
        WHEN secrets <> '{}'::jsonb AND (completed_at IS NOT NULL OR state IN ('failed', 'expired', 'cancelled')
            OR (state = 'sent' AND delivery <> 'until_answered')) THEN 'secrets_are_wiped'
        -- Every sweep ends them, and five minutes are five sweeps.
        WHEN state = 'sending' AND lease_until < clock_timestamp() - interval '5 minutes' THEN 'lease_is_ended'
        WHEN state IN ('accepted', 'retry_wait') AND expires_at < clock_timestamp() - interval '5 minutes'
            THEN 'life_is_ended'
    END AS rule
    FROM history
)
SELECT count(*) AS checked,
    count(*) FILTER (WHERE exempt) AS exempt,
    count(*) FILTER (WHERE rule IS NOT NULL) AS violations,
    (SELECT to_jsonb(first) FROM (
        SELECT request_id, device_id, state, created_at, rule FROM judged WHERE rule IS NOT NULL
        ORDER BY created_at, request_id LIMIT 1) AS first) AS first
FROM judged
