-- The installations of a build, newest first, including those from before a re-enrollment. No rows: there are none
-- after the cursor, or there is no such build.
SELECT i.id AS installation_id, i.device_id, d.alias, i.status, i.error_message AS error, i.download_progress,
    i.initiated_at, i.initiated_by, i.installing_at, i.claimed_at, i.completed_at AS ended_at, i.request_id
FROM apk_installations i JOIN devices d ON d.id = i.device_id
WHERE i.apk_version_id = %(build_id)s
  AND (%(status)s::text IS NULL OR i.status = %(status)s)
  AND (%(before)s::integer IS NULL OR i.id < %(before)s)
ORDER BY i.id DESC LIMIT %(limit)s
