-- Removes and sets labels on the devices that {where} selects, and writes one event if any device changed. Always
-- returns one row; nothing was changed unless `agreed` is true, `missing` is empty and `full` is NULL. The new labels
-- are computed from the row as the update finds it, so that no concurrent change is lost.
WITH selected AS MATERIALIZED (
    SELECT d.id, d.alias, (d.labels - %(remove)s::text[]) || %(set)s::jsonb AS labels
    FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL AND {where}
), missing AS MATERIALIZED (
    SELECT unnest(%(device_ids)s::text[]) AS id EXCEPT SELECT id FROM selected
), counted AS MATERIALIZED (
    SELECT count(*)::integer AS device_count, target_hash(array_agg(id)) AS target_hash FROM selected
), target AS MATERIALIZED (
    SELECT *, coalesce(%(expect_target_hash)s = target_hash, true) AS agreed FROM counted
), full_device AS MATERIALIZED (
    SELECT alias FROM selected WHERE (SELECT count(*) FROM jsonb_object_keys(labels)) > %(max_labels)s LIMIT 1
), changed AS (
    UPDATE devices d SET labels = (d.labels - %(remove)s::text[]) || %(set)s::jsonb
    FROM selected CROSS JOIN target
    WHERE d.id = selected.id AND d.deleted_at IS NULL AND target.agreed
      AND NOT EXISTS (SELECT FROM missing) AND NOT EXISTS (SELECT FROM full_device)
      AND d.labels <> (d.labels - %(remove)s::text[]) || %(set)s::jsonb
    RETURNING d.id
), result AS (
    SELECT count(*)::integer AS changed FROM changed
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'device.label', 'devices:' || target_hash,
        jsonb_strip_nulls(jsonb_build_object('filter', %(filter)s::jsonb, 'set', %(set)s::jsonb,
            'remove', to_jsonb(%(remove)s::text[]), 'device_count', device_count, 'changed', changed))
    FROM target CROSS JOIN result WHERE changed > 0
)
SELECT device_count, target_hash, agreed, changed, (SELECT alias FROM full_device) AS full,
    ARRAY(SELECT id FROM missing ORDER BY id LIMIT 10) AS missing
FROM target CROSS JOIN result
