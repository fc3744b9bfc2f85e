-- Claims the waiting notifications of one set of routes, the one that has waited the longest, and counts them by rule
-- and kind, with the first few devices of each. Zero rows: none are waiting, or another run is sending them.
-- Notifications held back by a rule's quiet hours keep waiting.
--
-- A recovery goes where the opening went, under the same rule, even if the alert's rule was changed, deleted or
-- replaced since: otherwise the incident that the opening began would never end.
WITH waiting AS MATERIALIZED (
    SELECT a.id, a.condition, a.severity, a.notice, a.since, a.detail, a.claim_id IS NOT NULL AS repeated, d.alias,
        d.deleted_at IS NOT NULL AS deleted,
        CASE a.notice WHEN 'recovered' THEN coalesce(a.notified_rule, a.rule) ELSE a.rule END AS rule,
        CASE a.notice WHEN 'recovered' THEN coalesce(a.notified_routes, r.routes, '{}')
            ELSE coalesce(r.routes, '{}') END AS routes
    FROM device_alerts a JOIN devices d ON d.id = a.device_id LEFT JOIN alert_rules r ON r.name = a.rule
    WHERE a.notice IS NOT NULL AND (a.lease_until IS NULL OR a.lease_until < clock_timestamp())
      AND NOT (a.rule IS NOT NULL AND a.rule = ANY (%(quiet)s::text[]))
    FOR UPDATE OF a SKIP LOCKED
), chosen AS (
    SELECT routes FROM waiting ORDER BY since, id LIMIT 1
), pending AS MATERIALIZED (
    SELECT w.* FROM waiting w JOIN chosen USING (routes)
), claimed AS (
    UPDATE device_alerts a SET claim_id = %(claim_id)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
        notified_rule = p.rule, notified_routes = p.routes
    FROM pending p WHERE a.id = p.id
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY condition, rule, notice ORDER BY since, alias) AS n FROM pending
)
SELECT condition, coalesce(rule, condition) AS rule, notice, min(severity) AS severity, count(*) AS devices,
    bool_or(repeated) AS repeated, min(routes) AS routes,
    (SELECT count(*) FROM device_alerts o
     WHERE coalesce(o.notified_rule, o.rule, o.condition) = coalesce(numbered.rule, numbered.condition)
       AND o.recovered_at IS NULL AND o.opened_at IS NOT NULL AND NOT o.muted) AS still_open,
    jsonb_agg(jsonb_build_object('alias', alias, 'detail', detail, 'deleted', deleted) ORDER BY n)
        FILTER (WHERE n <= %(named)s) AS first
FROM numbered GROUP BY condition, rule, notice ORDER BY notice, count(*) DESC, condition, rule
