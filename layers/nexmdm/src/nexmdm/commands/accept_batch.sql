-- Stores a bulk command: the batch, a dispatch for each device that {where} selects, and the event, once per request_id.
-- Always returns one row. If `made` is false nothing was stored, because an id is `missing`, the devices are not
-- `agreed`, no device is selected, or the request_id is taken.
WITH selected AS MATERIALIZED (
    SELECT d.id FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND {where}
), missing AS MATERIALIZED (
    SELECT unnest(%(device_ids)s::text[]) AS id EXCEPT SELECT id FROM selected
), counted AS MATERIALIZED (
    SELECT count(*)::integer AS device_count, target_hash(array_agg(id)) AS target_hash FROM selected
), target AS MATERIALIZED (
    SELECT *, coalesce(%(expect_target_hash)s = target_hash, true) AS agreed FROM counted
), batch AS (
    INSERT INTO command_batches (request_id, payload_hash, selector, device_count, created_by, created_at)
    SELECT %(request_id)s, %(payload_hash)s, %(selector)s::jsonb, device_count, %(by)s, clock_timestamp()
    FROM target
    WHERE device_count > 0 AND agreed AND NOT EXISTS (SELECT FROM missing)
      AND NOT EXISTS (SELECT FROM fcm_dispatches WHERE request_id = %(request_id)s)
    ON CONFLICT (request_id) DO NOTHING
    RETURNING request_id, created_at
), dispatched AS (
    INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, payload, secrets, delivery, created_by,
        state, batch_id, created_at, sent_at, expires_at)
    SELECT batch.request_id || ':' || selected.id, selected.id, %(action)s, %(payload_hash)s, %(payload)s::jsonb,
        %(secrets)s::jsonb, %(delivery)s, %(by)s, 'accepted', batch.request_id, batch.created_at, batch.created_at,
        batch.created_at + make_interval(secs => %(ttl_seconds)s)
    FROM batch CROSS JOIN selected
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'command.send_many',
        'command:' || batch.request_id, %(event)s::jsonb || jsonb_strip_nulls(jsonb_build_object(
            'device_count', device_count, 'target_hash', target_hash, 'filter', %(filter)s::jsonb))
    FROM batch CROSS JOIN target
)
SELECT EXISTS (SELECT FROM batch) AS made, device_count, target_hash, agreed,
    ARRAY(SELECT id FROM missing ORDER BY id LIMIT 10) AS missing
FROM target
