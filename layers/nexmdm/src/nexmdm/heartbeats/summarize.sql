-- Adds reports that are about to be removed to device_history, by device and hour in UTC. {rows} is what holds them. An
-- hour may come in parts: counts are added, the last report is the one with the latest time. In order of the key, since
-- two cleanups may add to the same hours.
INSERT INTO device_history AS h (device_id, hour, reports, last_ts, {columns})
SELECT device_id, date_trunc('hour', ts, 'UTC'), count(*), max(ts), {values}
FROM {rows}
GROUP BY 1, 2
ORDER BY 1, 2
ON CONFLICT (device_id, hour) DO UPDATE SET
    reports = h.reports + EXCLUDED.reports,
    last_ts = greatest(h.last_ts, EXCLUDED.last_ts),
    {merged}
