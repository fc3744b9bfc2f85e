-- Adds an event that a device caused. The role of the device functions may not insert into operator_events, but it may
-- call this function, which runs with its owner's rights, accepts only the actions listed here, and always names the
-- system as the actor. Since v2: a rollout that pauses itself.
CREATE FUNCTION record_system_event_v2(
    p_function text, p_action text, p_object text, p_request_id text, p_before jsonb, p_after jsonb
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $function$
BEGIN
    IF p_action NOT IN ('device.register', 'device.take_over', 'build.pause') THEN
        RAISE EXCEPTION 'record_system_event_v2 does not take the action %', p_action
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO operator_events (actor, request_id, action, object, before, after)
    VALUES ('system:' || p_function, p_request_id, p_action, p_object, p_before, p_after);
END
$function$
