-- Devices that have their monitored app installed and did not have it in front for longer than the threshold, in seconds,
-- when they last reported. Zero rows: none, or no agent reports it.
--
-- Which app is monitored is worked out last, for the devices that look so only: it asks the filter of every group.
WITH looks_so AS MATERIALIZED (
    SELECT d.id, d.monitored_package, l.monitored_foreground_recent_s
    FROM devices d JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND l.monitored_foreground_recent_s > %(threshold)s
)
SELECT d.id AS device_id,
    jsonb_build_object('package', a.package, 'foreground_seconds', d.monitored_foreground_recent_s) AS detail
FROM looks_so d JOIN device_apps a ON a.device_id = d.id AND a.installed
    AND a.package = monitored_package_v1(d.id, d.monitored_package, %(app_package)s, %(interval_seconds)s)
