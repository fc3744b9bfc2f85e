-- Devices whose clock was wrong by more than the threshold, in seconds, when their last report was received. A time in
-- the future is certainly wrong. A time in the past may belong to a report that waited in the device's queue, so it
-- counts only if the device has been heard from since without a newer time.
SELECT d.id AS device_id,
    jsonb_build_object('seconds', round(extract(epoch FROM l.device_ts - l.received_at))) AS detail
FROM devices d JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL
  AND (l.device_ts > l.received_at + make_interval(secs => %(threshold)s)
       OR (l.device_ts < l.received_at - make_interval(secs => %(threshold)s) AND coalesce(l.queue_depth, 0) <= 1))
