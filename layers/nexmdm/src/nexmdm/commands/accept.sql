-- Stores a command for one device, once per request_id. Zero rows: the request_id is taken, by a command or a bulk
-- command, or there is no such device.
--
-- The first statement serializes calls with the same request_id. Both statements are in one message and so in one
-- transaction: the second sees what earlier calls committed, without an additional round trip.
SELECT pg_advisory_xact_lock(hashtextextended('nexmdm.command ' || %(request_id)s, 0));
WITH made AS (
    INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, payload, secrets, delivery, created_by,
        state, refused, created_at, sent_at, expires_at)
    SELECT %(request_id)s, id, %(action)s, %(payload_hash)s, %(payload)s::jsonb, %(secrets)s::jsonb, %(delivery)s,
        %(by)s, 'accepted', 0, clock_timestamp(), clock_timestamp(),
        clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
    FROM devices WHERE id = %(device_id)s AND deleted_at IS NULL
      AND NOT EXISTS (SELECT FROM command_batches WHERE request_id = %(request_id)s)
    ON CONFLICT (request_id) DO NOTHING
    RETURNING request_id, device_id
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'command.send', 'command:' || request_id,
        %(event)s::jsonb || jsonb_build_object('device_id', device_id)
    FROM made
)
SELECT request_id FROM made
