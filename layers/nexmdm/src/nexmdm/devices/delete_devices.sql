-- Deletes the devices that {where} selects, and writes one event if there were any. Always returns one row; nothing was
-- deleted unless `agreed` is true and `missing` is empty. A device that was deleted before is not missing, so that a
-- call whose response was lost can be repeated.
WITH selected AS MATERIALIZED (
    SELECT d.id FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND {where}
), missing AS MATERIALIZED (
    SELECT unnest(%(device_ids)s::text[]) AS id EXCEPT SELECT id FROM devices
), counted AS MATERIALIZED (
    SELECT count(*)::integer AS device_count, target_hash(array_agg(id)) AS target_hash FROM selected
), target AS MATERIALIZED (
    SELECT *, coalesce(%(expect_target_hash)s = target_hash, true) AS agreed FROM counted
), deleted AS (
    UPDATE devices d SET deleted_at = statement_timestamp(), deleted_by = %(actor)s, fcm_token = NULL
    FROM selected CROSS JOIN target
    WHERE d.id = selected.id AND d.deleted_at IS NULL AND target.agreed AND NOT EXISTS (SELECT FROM missing)
    RETURNING d.id
), result AS (
    SELECT count(*)::integer AS deleted FROM deleted
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'device.delete', 'devices:' || target_hash,
        jsonb_strip_nulls(jsonb_build_object('filter', %(filter)s::jsonb, 'device_count', device_count,
            'deleted', deleted))
    FROM target CROSS JOIN result WHERE deleted > 0
)
SELECT device_count, target_hash, agreed, deleted,
    ARRAY(SELECT id FROM missing ORDER BY id LIMIT 10) AS missing
FROM target CROSS JOIN result
