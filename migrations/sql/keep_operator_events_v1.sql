-- Rejects changes of events for every role. Retention removes old events; only its role may delete.
CREATE FUNCTION keep_operator_events_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $function$
BEGIN
    RAISE EXCEPTION 'operator_events is append only' USING ERRCODE = 'insufficient_privilege';
END
$function$
