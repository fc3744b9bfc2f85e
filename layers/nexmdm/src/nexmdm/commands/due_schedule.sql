-- Locks the schedule that has been due the longest. Zero rows: none is due, or other sweeps hold all due ones.
SELECT *, clock_timestamp() AS now FROM schedules
WHERE enabled AND next_run_at <= clock_timestamp()
ORDER BY next_run_at
LIMIT 1
FOR UPDATE SKIP LOCKED
