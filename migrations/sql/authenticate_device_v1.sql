-- Authenticates a device token and applies the effects of its use; the only place with this rule.
--
-- No row: the token is unknown, or its device was deleted more than 24 hours ago. `deleted_at` set: the device was
-- deleted within the last 24 hours; the caller returns 410. The first use of a device's newest token confirms it and
-- invalidates every older token of the device. Using an older token neither confirms nor invalidates: a phone that
-- registered twice may still send what it queued with its first token.
CREATE FUNCTION authenticate_device_v1(p_token_id text)
RETURNS TABLE (id text, deleted_at timestamptz, confirmed_at timestamptz)
LANGUAGE plpgsql STRICT ROWS 1
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $function$
#variable_conflict use_column
DECLARE
    found_device record;
BEGIN
    SELECT d.id, d.deleted_at, d.confirmed_at, d.prior_token_id, d.older_token_ids INTO found_device
    FROM devices d WHERE d.token_id = p_token_id;
    IF FOUND AND found_device.confirmed_at IS NULL AND found_device.deleted_at IS NULL THEN
        -- An update of a column of a unique index locks the row against heartbeats, which reference it, so the first
        -- concurrent reports of a phone would block each other. It is done only if there are tokens to invalidate.
        IF found_device.prior_token_id IS NULL AND found_device.older_token_ids = '{}' THEN
            UPDATE devices d SET confirmed_at = clock_timestamp()
            WHERE d.token_id = p_token_id AND d.confirmed_at IS NULL AND d.deleted_at IS NULL
            RETURNING d.id, d.deleted_at, d.confirmed_at INTO found_device;
        ELSE
            UPDATE devices d SET prior_token_id = NULL, older_token_ids = '{}', confirmed_at = clock_timestamp()
            WHERE d.token_id = p_token_id AND d.confirmed_at IS NULL AND d.deleted_at IS NULL
            RETURNING d.id, d.deleted_at, d.confirmed_at INTO found_device;
        END IF;
    END IF;
    IF NOT FOUND THEN
        -- An older token, or a concurrent registration or call was faster: read the row again.
        SELECT d.id, d.deleted_at, d.confirmed_at INTO found_device FROM devices d
        WHERE d.token_id = p_token_id OR d.prior_token_id = p_token_id OR d.older_token_ids @> ARRAY[p_token_id];
    END IF;
    IF NOT FOUND OR found_device.deleted_at < statement_timestamp() - interval '24 hours' THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT found_device.id, found_device.deleted_at, found_device.confirmed_at;
END
$function$
