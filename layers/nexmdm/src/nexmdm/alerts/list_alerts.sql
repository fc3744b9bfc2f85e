-- A page of the alerts of enrolled devices, newest first; a pending alert has not lasted as long as its rule requires.
SELECT a.id AS alert_id, a.device_id, d.alias, a.condition, a.rule, a.severity,
    CASE WHEN a.recovered_at IS NOT NULL THEN 'recovered' WHEN a.opened_at IS NULL THEN 'pending' ELSE 'open' END
        AS state,
    a.since, a.opened_at, a.notified_at, a.recovered_at, a.muted, a.acked_at, a.acked_by, a.ack_note, a.detail
FROM device_alerts a JOIN devices d ON d.id = a.device_id LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL
  AND (%(condition)s::text IS NULL OR a.condition = %(condition)s)
  AND (%(severity)s::text IS NULL OR a.severity = %(severity)s)
  AND (%(device_id)s::text IS NULL OR a.device_id = %(device_id)s)
  AND (%(open)s::bool IS NULL OR (a.recovered_at IS NULL) = %(open)s)
  AND (%(before)s::numeric IS NULL OR a.id < %(before)s::numeric)
  AND ({where})
ORDER BY a.id DESC
LIMIT %(limit)s
