-- Trigger of devices.fcm_token: an FCM registration token belongs to one device, the last to report it.
--
-- Phones restored from one backup report the same token. The lock serializes concurrent reports, so that the later one
-- sees, and clears, the token of the earlier one.
CREATE FUNCTION take_fcm_token_v1() RETURNS trigger
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('nexmdm.fcm_token ' || NEW.fcm_token, 0));
    UPDATE devices SET fcm_token = NULL, fcm_token_at = NULL WHERE fcm_token = NEW.fcm_token AND id <> NEW.id;
    RETURN NEW;
END
$function$
