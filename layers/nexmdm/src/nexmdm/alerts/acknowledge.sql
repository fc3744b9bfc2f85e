-- Acknowledges an open alert; a later note replaces an earlier one. Zero rows: there is no such alert,
-- or it has recovered.
UPDATE device_alerts a SET acked_at = clock_timestamp(), acked_by = %(by)s, ack_note = %(note)s
FROM devices d
WHERE a.id = %(alert_id)s AND d.id = a.device_id AND d.deleted_at IS NULL AND a.recovered_at IS NULL
  AND a.opened_at IS NOT NULL
RETURNING a.device_id, a.condition
