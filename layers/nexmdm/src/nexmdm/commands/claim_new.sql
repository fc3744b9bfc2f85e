-- Creates a dispatch that the caller has already claimed and sends itself; the sweep never sends it. Zero rows: the
-- request_id is taken, or there is no such device.
INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, fcm_status, retries, state, fence, attempts,
    refused, created_at, sent_at, expires_at, lease_until, fcm_expires_at)
SELECT %(request_id)s, id, %(action)s, %(payload_hash)s, %(fcm_status)s, %(retries)s, 'sending', 1, 1, 0,
    clock_timestamp(), clock_timestamp(), clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
    clock_timestamp() + make_interval(secs => %(lease_seconds)s),
    clock_timestamp() + make_interval(secs => %(lease_seconds)s + %(fcm_ttl_seconds)s)
FROM devices WHERE id = %(device_id)s AND deleted_at IS NULL
ON CONFLICT (request_id) DO NOTHING
RETURNING request_id
