-- Claims the waiting notifications of one set of routes, the one that has waited the longest, and counts them by rule
-- and kind, with the first few devices of each. Zero rows: none are waiting, or another run is sending them.
-- Notifications held back by a rule's quiet hours keep waiting.
WITH waiting AS MATERIALIZED (
    SELECT a.id, a.condition, a.rule, a.severity, a.notice, a.since, a.detail, a.claim_id IS NOT NULL AS repeated,
        d.alias, coalesce(r.routes, '{}') AS routes
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
        lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
    FROM pending p WHERE a.id = p.id
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY condition, rule, notice ORDER BY since, alias) AS n FROM pending
)
SELECT condition, coalesce(rule, condition) AS rule, notice, min(severity) AS severity, count(*) AS devices,
    bool_or(repeated) AS repeated, min(routes) AS routes,
    (SELECT count(*) FROM device_alerts o
     WHERE o.condition = numbered.condition AND o.rule IS NOT DISTINCT FROM numbered.rule
       AND o.recovered_at IS NULL AND o.opened_at IS NOT NULL AND NOT o.muted) AS still_open,
    jsonb_agg(jsonb_build_object('alias', alias, 'detail', detail) ORDER BY n) FILTER (WHERE n <= %(named)s) AS first
FROM numbered GROUP BY condition, rule, notice ORDER BY notice, count(*) DESC, condition, rule
