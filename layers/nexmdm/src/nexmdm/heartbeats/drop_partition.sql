-- Drops one partition and summarizes its hours in device_history: both or neither, even if it is killed. While it
-- summarizes, the partition can be read but not written; the locks that affect heartbeats are requested at the end, for
-- half a second at a time. Raises object_in_use if another session is dropping the partition, and
-- object_not_in_prerequisite_state if the partition does not have the {expected} rows that were archived (null: no
-- archive).
DO $$
DECLARE
    found bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('nexmdm.partitions.drop'), hashtext('{name}')) THEN
        RAISE 'another session is dropping {name}' USING ERRCODE = 'object_in_use';
    END IF;
    -- Longer than deadlock_timeout, after which an autovacuum of the partition is cancelled.
    SET LOCAL lock_timeout = '3s';
    LOCK TABLE "{name}" IN SHARE ROW EXCLUSIVE MODE;
    IF {expected}::bigint IS NOT NULL THEN
        SELECT count(*) INTO found FROM "{name}";
        IF found <> {expected} THEN
            RAISE '{name} does not hold the rows that were archived'
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
    END IF;
    {summarize};
    SET LOCAL lock_timeout = '{lock_timeout}';
    FOR attempt IN 1..{tries} LOOP
        BEGIN
            DROP TABLE "{name}";
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF attempt = {tries} THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(attempt * (0.05 + random() * 0.2));
    END LOOP;
END $$
