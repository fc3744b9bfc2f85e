-- Adds reports that are about to be removed to device_history, by device and hour in UTC. {rows} is their source. An
-- hour may be added in parts: counts are summed, and the last report is the one with the latest time. Sorted by key,
-- because two cleanups may add to the same hours.
INSERT INTO device_history AS h (device_id, hour, reports, last_ts, {columns})
SELECT device_id, date_trunc('hour', ts, 'UTC'), count(*), max(ts), {values}
FROM {rows}
GROUP BY 1, 2
ORDER BY 1, 2
ON CONFLICT (device_id, hour) DO UPDATE SET
    reports = h.reports + EXCLUDED.reports,
    last_ts = greatest(h.last_ts, EXCLUDED.last_ts),
    {merged}
