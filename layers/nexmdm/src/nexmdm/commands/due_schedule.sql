-- The schedule that is due longest, locked; zero rows mean: none is due that another sweep does not hold.
SELECT *, clock_timestamp() AS now FROM schedules
WHERE enabled AND next_run_at <= clock_timestamp()
ORDER BY next_run_at
LIMIT 1
FOR UPDATE SKIP LOCKED
