-- Records a device's answer to a command, once; returns whether this answer was the first.
--
-- The answer may arrive before the sender has recorded FCM's response, and in any order; the first one is kept. The
-- states failed and cancelled do not change; every other state becomes sent. False also means that the device has no
-- such command. If p_action is given it must be the command's action: a heartbeat settles only pings.
CREATE FUNCTION complete_command_v1(
    p_request_id text, p_device_id text, p_result text, p_message text, p_action text DEFAULT NULL
) RETURNS boolean LANGUAGE sql VOLATILE AS $function$
    WITH completed AS (
        UPDATE fcm_dispatches SET
            state = CASE WHEN state IN ('failed', 'cancelled') THEN state ELSE 'sent' END,
            lease_until = NULL,
            next_at = NULL,
            secrets = CASE WHEN secrets IS NOT NULL THEN '{}'::jsonb END,
            completed_at = clock_timestamp(),
            result = p_result,
            result_message = p_message
        WHERE request_id = p_request_id AND device_id = p_device_id AND completed_at IS NULL
          AND action = coalesce(p_action, action)
        RETURNING request_id
    )
    SELECT EXISTS (SELECT FROM completed)
$function$
