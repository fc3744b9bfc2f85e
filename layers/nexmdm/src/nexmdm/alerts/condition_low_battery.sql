-- Devices whose last report gives the battery less than the threshold, in percent.
SELECT d.id AS device_id, jsonb_build_object('battery_pct', l.battery_pct, 'plugged', l.plugged) AS detail
FROM devices d JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL AND l.battery_pct < %(threshold)s
