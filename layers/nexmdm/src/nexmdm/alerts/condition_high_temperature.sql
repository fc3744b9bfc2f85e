-- Devices whose last report gives the battery at least the threshold, in degrees Celsius.
SELECT d.id AS device_id, jsonb_build_object('temp_c', l.temp_c) AS detail
FROM devices d JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL AND l.temp_c >= %(threshold)s
