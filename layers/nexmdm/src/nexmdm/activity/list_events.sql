-- The events that match every given condition, newest first; zero rows: there is none (left).
-- The patterns have no wildcard but a last one, so the planner reads the index on the column that is given.
SELECT event_id, at, actor, session, ip, action, object, before, after, request_id
FROM operator_events
WHERE (%(after)s::numeric IS NULL OR event_id < %(after)s::numeric)
  AND (%(actor)s::text IS NULL OR actor LIKE %(actor)s)
  AND (%(action)s::text IS NULL OR action LIKE %(action)s)
  AND (%(object)s::text IS NULL OR object LIKE %(object)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
ORDER BY event_id DESC
LIMIT %(limit)s
