-- Devices that have their monitored app installed and, at their last report, had not had it in the foreground for
-- longer than the threshold, in seconds. Zero rows: there are none, or no agent reports it.
--
-- The monitored app is determined last, only for candidate devices, because that evaluates every group's filter.
WITH looks_so AS MATERIALIZED (
    SELECT d.id, d.monitored_package, l.monitored_foreground_recent_s
    FROM devices d JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND l.monitored_foreground_recent_s > %(threshold)s
)
SELECT d.id AS device_id,
    jsonb_build_object('package', a.package, 'foreground_seconds', d.monitored_foreground_recent_s) AS detail
FROM looks_so d JOIN device_apps a ON a.device_id = d.id AND a.installed
    AND a.package = monitored_package_v1(d.id, d.monitored_package, %(app_package)s, %(interval_seconds)s)
