-- Creates a launch_app for each online device whose monitored app is installed and has not been in the foreground for
-- longer than the threshold: one per device and half hour, and no second one before the device has reported again. The
-- request_id is the unique key, so only one of two sweeps creates it. Zero rows: there is no such device.
WITH behind AS MATERIALIZED (
    -- The monitored app is determined afterwards, only for these devices, because that evaluates every group's filter.
    SELECT d.id, d.monitored_package, l.monitored_foreground_recent_s AS seconds
    FROM devices d
    JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND d.fcm_token IS NOT NULL
      AND l.monitored_foreground_recent_s > %(threshold)s
      AND device_online(l.last_seen_at, %(interval_seconds)s)
      AND NOT EXISTS (
          SELECT FROM fcm_dispatches f
          WHERE f.device_id = d.id AND f.request_id ^@ 'relaunch.' AND f.created_at > l.last_seen_at)
), wanted AS MATERIALIZED (
    SELECT d.id, a.package, d.seconds,
        'relaunch.' || d.id || '.' || floor(extract(epoch FROM clock_timestamp()) / 1800)::bigint AS request_id
    FROM behind d JOIN device_apps a ON a.device_id = d.id AND a.installed
        AND a.package = monitored_package_v1(d.id, d.monitored_package, %(app_package)s, %(interval_seconds)s)
    ORDER BY d.seconds DESC
    LIMIT %(limit)s
), made AS (
    INSERT INTO fcm_dispatches (request_id, device_id, action, payload, created_by, state, refused, created_at,
        sent_at, expires_at)
    SELECT request_id, id, 'launch_app', jsonb_build_object('package_name', package), %(actor)s, 'accepted', 0,
        clock_timestamp(), clock_timestamp(), clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
    FROM wanted
    ON CONFLICT (request_id) DO NOTHING
    RETURNING request_id, device_id
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'device.relaunch_app',
        'device:' || made.device_id, jsonb_build_object(
            'package', wanted.package, 'foreground_seconds', wanted.seconds, 'command', made.request_id)
    FROM made JOIN wanted ON wanted.request_id = made.request_id
)
SELECT request_id FROM made
