-- Compares the devices of one rule with their alerts of its condition, and writes the changes. Returns one row: how
-- many alerts opened and recovered. {condition} finds the devices that meet the condition; {applies} and {muted} say
-- for a device d with its last status l whether the rule applies to it and whether a mute covers it.
--
-- Unchanged rows are not written. The full join can only be a hash or merge join, and the rows to update are selected
-- before they are joined, so regardless of the planner's estimates an outage of the whole fleet does not cause a nested
-- loop over all rows. ON CONFLICT, and the conditions that the updates repeat, handle concurrent runs.
WITH troubled AS MATERIALIZED (
    SELECT t.device_id, t.detail, ({muted}) AS muted
    FROM ({condition}) AS t JOIN devices d ON d.id = t.device_id LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE ({applies})
), known AS MATERIALIZED (
    SELECT a.id, a.device_id, a.since, a.opened_at, a.clear_since, a.rule, a.severity, ({muted}) AS muted
    FROM device_alerts a JOIN devices d ON d.id = a.device_id LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE a.condition = %(condition)s AND a.recovered_at IS NULL AND ({applies})
), compared AS MATERIALIZED (
    SELECT coalesce(t.device_id, a.device_id) AS device_id, t.detail, coalesce(t.muted, a.muted) AS muted, a.id,
        t.device_id IS NULL AS clear, a.opened_at IS NULL AS pending, a.clear_since,
        (a.rule, a.severity) IS DISTINCT FROM (%(rule)s, %(severity)s) AS moved,
        a.since <= statement_timestamp() - make_interval(secs => %(for_seconds)s) AS lasted,
        coalesce(a.clear_since, statement_timestamp())
            <= statement_timestamp() - make_interval(secs => %(cooldown_seconds)s) AS for_good
    FROM troubled t FULL JOIN known a ON a.device_id = t.device_id
), back AS MATERIALIZED (
    SELECT id FROM compared WHERE id IS NOT NULL AND NOT clear AND NOT pending AND (clear_since IS NOT NULL OR moved)
), ripe AS MATERIALIZED (
    SELECT id, detail, muted FROM compared WHERE id IS NOT NULL AND NOT clear AND pending AND lasted
), away AS MATERIALIZED (
    SELECT id FROM compared WHERE clear AND NOT pending AND clear_since IS NULL AND NOT for_good
), over AS MATERIALIZED (
    SELECT id, muted FROM compared WHERE clear AND NOT pending AND for_good
), dropped AS MATERIALIZED (
    SELECT id FROM compared WHERE id IS NOT NULL AND clear AND pending
), found AS (
    INSERT INTO device_alerts (device_id, condition, rule, severity, since, opened_at, detail, muted, notice)
    SELECT device_id, %(condition)s, %(rule)s, %(severity)s, statement_timestamp(),
        CASE WHEN %(for_seconds)s = 0 THEN statement_timestamp() END, detail, muted,
        CASE WHEN %(for_seconds)s = 0 AND NOT muted THEN 'opened' END
    FROM compared WHERE id IS NULL
    ON CONFLICT (device_id, condition) WHERE recovered_at IS NULL DO NOTHING
    RETURNING opened_at
), opened AS (
    UPDATE device_alerts a SET opened_at = statement_timestamp(), detail = ripe.detail, muted = ripe.muted,
        rule = %(rule)s, severity = %(severity)s, notice = CASE WHEN NOT ripe.muted THEN 'opened' END
    FROM ripe WHERE a.id = ripe.id AND a.recovered_at IS NULL AND a.opened_at IS NULL
    RETURNING 1
), stayed AS (
    UPDATE device_alerts a SET clear_since = NULL, rule = %(rule)s, severity = %(severity)s
    FROM back WHERE a.id = back.id AND a.recovered_at IS NULL
), cleared AS (
    UPDATE device_alerts a SET clear_since = statement_timestamp()
    FROM away WHERE a.id = away.id AND a.recovered_at IS NULL AND a.clear_since IS NULL
), recovered AS (
    -- A run that is notifying about the opening loses its claim, and the recovery is notified instead. If the opening
    -- was notified, so is the recovery, even while muted: it may end an incident. Otherwise there is no notification
    -- for an alert that opened or recovers while muted, or whose opening is still held back by quiet hours.
    UPDATE device_alerts a SET clear_since = coalesce(a.clear_since, statement_timestamp()),
        recovered_at = statement_timestamp(), claim_id = NULL, lease_until = NULL,
        muted = a.muted OR (over.muted AND a.notified_at IS NULL AND a.claim_id IS NULL),
        notice = CASE WHEN a.notified_at IS NOT NULL OR a.claim_id IS NOT NULL
            OR NOT (a.muted OR over.muted OR %(quiet)s) THEN 'recovered' END
    FROM over WHERE a.id = over.id AND a.recovered_at IS NULL
    RETURNING 1
), forgotten AS (
    DELETE FROM device_alerts a USING dropped WHERE a.id = dropped.id AND a.recovered_at IS NULL AND a.opened_at IS NULL
)
SELECT (SELECT count(opened_at) FROM found) + (SELECT count(*) FROM opened) AS opened,
    (SELECT count(*) FROM recovered) AS recovered
