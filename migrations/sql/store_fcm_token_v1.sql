-- Stores the FCM registration token that a device reports on the route for tokens; true if the row changed.
--
-- False: it is already stored, or the device was deleted or taken over since the caller authenticated. The trigger of
-- devices.fcm_token removes the token from another device. A token that FCM reported as UNREGISTERED is accepted here,
-- because the agent calls this route when it has received a token from FCM.
CREATE FUNCTION store_fcm_token_v1(p_device_id text, p_token_id text, p_fcm_token text) RETURNS bool
LANGUAGE plpgsql
AS $function$
BEGIN
    UPDATE devices d SET fcm_token = p_fcm_token, fcm_token_at = statement_timestamp(), unregistered_fcm_token = NULL
    WHERE d.id = p_device_id AND d.deleted_at IS NULL AND d.fcm_token IS DISTINCT FROM p_fcm_token
      AND (p_token_id IN (d.token_id, d.prior_token_id) OR d.older_token_ids @> ARRAY[p_token_id]);
    RETURN FOUND;
END
$function$
