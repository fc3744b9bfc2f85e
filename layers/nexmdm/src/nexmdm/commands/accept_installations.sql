-- Creates the batch of an install_apk, with an installation and a dispatch for each device that is asked: the devices
-- of a build's target (named devices, or the cohort of a percentage that matches the filter {where}) that neither have
-- the build nor were asked recently. A device that was asked longer ago than a command's time to live is asked again,
-- and so is one whose command was never delivered: it failed, expired or was cancelled. Always returns one row. `made`
-- is false if no device was selected, a named device is missing, or the request_id is taken.
WITH target AS MATERIALIZED (
    SELECT d.id, d.taken_over_at, reported.version AS runs
    FROM devices d JOIN apk_versions b ON b.id = %(build_id)s LEFT JOIN device_last_status l ON l.device_id = d.id
    CROSS JOIN LATERAL reported_version_v2(
        d.id, b.package_name, b.version_code, b.version_name, %(agent_package)s) AS reported
    WHERE d.deleted_at IS NULL AND CASE WHEN %(device_ids)s::text[] IS NULL
        THEN rollout_bucket_v1(%(build_id)s, d.id) < %(percent)s AND {where}
        ELSE d.id = ANY (%(device_ids)s::text[]) END
), selected AS MATERIALIZED (
    SELECT t.id FROM target t
    WHERE coalesce(t.runs, -1) < 0
      AND NOT EXISTS (
          SELECT FROM apk_installations i
          WHERE i.device_id = t.id AND i.apk_version_id = %(build_id)s
            AND i.initiated_at >= coalesce(t.taken_over_at, '-infinity')
            AND ((i.status = 'completed' AND t.runs IS NULL) OR (i.status IN ('pending', 'downloading', 'installing')
                 AND i.initiated_at > statement_timestamp() - make_interval(secs => %(ttl_seconds)s)
                 AND NOT (i.status = 'pending' AND EXISTS (
                     SELECT FROM fcm_dispatches f
                     WHERE f.request_id = i.request_id AND f.state IN ('failed', 'expired', 'cancelled'))))))
), missing AS (
    SELECT unnest(%(device_ids)s::text[]) AS id EXCEPT SELECT id FROM target
), batch AS (
    INSERT INTO command_batches (request_id, payload_hash, selector, device_count, created_by, created_at)
    SELECT %(request_id)s, %(payload_hash)s, %(selector)s::jsonb, count(*), %(by)s, clock_timestamp() FROM selected
    WHERE NOT EXISTS (SELECT FROM missing)
      AND NOT EXISTS (SELECT FROM fcm_dispatches WHERE request_id = %(request_id)s)
    HAVING count(*) > 0
    ON CONFLICT (request_id) DO NOTHING
    RETURNING request_id, created_at
), installed AS (
    INSERT INTO apk_installations (device_id, apk_version_id, status, initiated_at, initiated_by, request_id)
    SELECT selected.id, %(build_id)s, 'pending', batch.created_at, %(by)s, batch.request_id || ':' || selected.id
    FROM batch CROSS JOIN selected
    RETURNING id, device_id
), unanswered AS MATERIALIZED (
    -- The caller holds the build, for which a report and the sweep wait while they hold installations. So this waits
    -- for none of those, and leaves them to the sweep.
    SELECT i.id FROM apk_installations i CROSS JOIN batch JOIN selected ON selected.id = i.device_id
    WHERE i.apk_version_id = %(build_id)s AND i.status IN ('pending', 'downloading', 'installing')
    FOR UPDATE OF i SKIP LOCKED
), lapsed AS (
    UPDATE apk_installations i SET status = 'unknown',
        error_message = coalesce(i.error_message, 'the device did not answer and was asked again')
    FROM unanswered WHERE i.id = unanswered.id
), dispatched AS (
    INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, payload, secrets, delivery, created_by,
        state, refused, batch_id, created_at, sent_at, expires_at)
    SELECT batch.request_id || ':' || installed.device_id, installed.device_id, %(action)s, %(payload_hash)s,
        %(payload)s::jsonb || jsonb_build_object('installation_id', installed.id,
            'download_url', %(download_url)s || '?installation_id=' || installed.id),
        %(secrets)s::jsonb, %(delivery)s, %(by)s, 'accepted', 0,
        batch.request_id, batch.created_at, batch.created_at, batch.created_at + make_interval(secs => %(ttl_seconds)s)
    FROM batch CROSS JOIN installed
)
SELECT EXISTS (SELECT FROM batch) AS made, (SELECT count(*) FROM selected) AS selected, count(*) AS cohort,
    count(*) FILTER (WHERE runs = 1) AS newer, ARRAY(SELECT id FROM missing ORDER BY id LIMIT 10) AS missing
FROM target
