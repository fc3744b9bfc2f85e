-- The events that match every given condition, newest first; zero rows: there are none, or none after the cursor.
-- A pattern has at most a wildcard at its end, so the planner can use the index on its column.
SELECT event_id, at, actor, session, ip, action, object, before, after, request_id
FROM operator_events
WHERE (%(after)s::numeric IS NULL OR event_id < %(after)s::numeric)
  AND (%(actor)s::text IS NULL OR actor LIKE %(actor)s)
  AND (%(action)s::text IS NULL OR action LIKE %(action)s)
  AND (%(object)s::text IS NULL OR object LIKE %(object)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
ORDER BY event_id DESC
LIMIT %(limit)s
