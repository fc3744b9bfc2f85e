-- Records a device's report on one of its installations. `completed` is only a claim: it completes the installation if
-- the device's heartbeats report the build's version, or if they do not report the package at all and the device has
-- reported `installing` before. A late report never reverts a status. The counts are on the build's row, whose lock
-- serializes concurrent reports: each sees all earlier ones, and a rollout with too many failures pauses itself.
-- Reports on requests from before a takeover are recorded but not counted. No row: the token is unknown. `status` null:
-- the device has no such installation.
WITH device AS MATERIALIZED (
    SELECT * FROM authenticate_device_v1(%(token_id)s)
), own AS (
    SELECT i.id, i.status, i.initiated_at >= coalesce(d.taken_over_at, '-infinity') AS counts, reported_version_v1(
        i.device_id, v.package_name, v.version_code, v.version_name, %(agent_package)s) AS runs
    FROM apk_installations i JOIN device ON device.id = i.device_id JOIN devices d ON d.id = device.id
    JOIN apk_versions v ON v.id = i.apk_version_id
    WHERE i.id = %(installation_id)s AND device.deleted_at IS NULL
), moved AS (
    UPDATE apk_installations i SET
        status = CASE
            WHEN %(status)s = 'completed' AND NOT (own.runs IS NOT DISTINCT FROM 0
                OR (own.runs IS NULL AND i.installing_at IS NOT NULL)) THEN i.status
            WHEN %(status)s = 'downloading' AND i.status = 'installing' THEN i.status
            ELSE %(status)s END,
        installing_at = CASE WHEN %(status)s = 'installing' THEN clock_timestamp() ELSE i.installing_at END,
        claimed_at = CASE WHEN %(status)s = 'completed' THEN clock_timestamp() ELSE i.claimed_at END,
        download_progress = CASE WHEN %(status)s = 'installing' THEN 100
                                 ELSE greatest(%(percent)s, i.download_progress) END,
        error_message = coalesce(%(error)s, i.error_message),
        completed_at = CASE WHEN %(status)s = 'failed' OR (%(status)s = 'completed' AND (
            own.runs = 0 OR (own.runs IS NULL AND i.installing_at IS NOT NULL))) THEN clock_timestamp() END
    FROM own WHERE i.id = own.id AND i.status NOT IN ('completed', 'failed')
    RETURNING i.id, i.device_id, i.apk_version_id, i.status, i.request_id, i.error_message, own.counts
), counted AS (
    UPDATE apk_versions v SET
        rollout_completed = v.rollout_completed + (moved.status = 'completed')::integer,
        rollout_failed = v.rollout_failed + (moved.status = 'failed')::integer,
        paused_at = CASE WHEN v.is_current AND v.paused_at IS NULL AND moved.status = 'failed'
            AND v.rollout_completed + v.rollout_failed + 1 >= %(least)s AND 100 * (v.rollout_failed + 1)
                > %(most_failed)s * (v.rollout_completed + v.rollout_failed + 1) THEN clock_timestamp() ELSE v.paused_at END,
        paused_reason = CASE WHEN v.is_current AND v.paused_at IS NULL AND moved.status = 'failed'
            AND v.rollout_completed + v.rollout_failed + 1 >= %(least)s AND 100 * (v.rollout_failed + 1)
                > %(most_failed)s * (v.rollout_completed + v.rollout_failed + 1) THEN v.rollout_failed + 1 || ' of ' || v.rollout_completed + v.rollout_failed + 1 || ' installations failed'
                             ELSE v.paused_reason END,
        audit = CASE WHEN v.is_current AND v.paused_at IS NULL AND moved.status = 'failed'
            AND v.rollout_completed + v.rollout_failed + 1 >= %(least)s AND 100 * (v.rollout_failed + 1)
                > %(most_failed)s * (v.rollout_completed + v.rollout_failed + 1) THEN v.audit || jsonb_build_object('event', 'pause', 'by', 'failed installations',
            'at', clock_timestamp(), 'failed', v.rollout_failed + 1, 'finished', v.rollout_completed + v.rollout_failed + 1) ELSE v.audit END
    FROM moved WHERE v.id = moved.apk_version_id AND moved.status IN ('completed', 'failed') AND moved.counts
    RETURNING v.id, v.paused_reason, v.paused_at >= statement_timestamp() AND moved.status = 'failed' AS paused
), settled AS MATERIALIZED (
    SELECT complete_command_v1(request_id, device_id, status, error_message) AS first
    FROM moved WHERE status IN ('completed', 'failed')
), told AS MATERIALIZED (
    SELECT record_system_event_v2('device_reports', 'build.pause', 'build:' || id, %(request_id)s, NULL,
        jsonb_build_object('reason', paused_reason)) FROM counted WHERE paused
)
SELECT device.id AS device_id, device.deleted_at IS NOT NULL AS deleted, EXISTS (SELECT FROM moved) AS moved,
    coalesce((SELECT status FROM moved), (SELECT status FROM own)) AS status,
    (SELECT id FROM counted WHERE paused) AS paused,
    (SELECT first FROM settled) AS settled, (SELECT count(*) FROM told) AS told
FROM device
