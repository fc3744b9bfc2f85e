-- Devices with at least as many unsent reports as the threshold, and more than in each report of the four intervals
-- before the last one (three reports, or two if one was lost). One more bucket is read, because a bucket begins before
-- its report. Only devices with many unsent reports are looked up, by the unique index of heartbeats.
SELECT d.id AS device_id, jsonb_build_object('queue_depth', l.queue_depth, 'before', before.least) AS detail
FROM devices d JOIN device_last_status l ON l.device_id = d.id
CROSS JOIN LATERAL (
    SELECT count(*) AS reports, min(h.queue_depth) AS least, max(h.queue_depth) AS most
    FROM device_heartbeats h
    WHERE h.device_id = d.id AND h.ts < l.last_ts AND h.bucket <= l.last_ts
      AND h.bucket > statement_timestamp()
          - make_interval(secs => 4 * %(interval_seconds)s::float8 + %(bucket_seconds)s)
) AS before
WHERE d.deleted_at IS NULL AND l.queue_depth >= %(threshold)s
  AND before.reports >= 2 AND l.queue_depth > before.most
