-- Builds with their statistics, newest first. A null filter selects all. `counted`: whether to compute statistics,
-- which reads every installation of a build. A completed installation whose device now reports another version counts
-- as replaced. Installations from before a re-enrollment do not count. `issued` counts download URLs since the build
-- was declared; the rows are kept only for DOWNLOAD_RETENTION_DAYS.
SELECT v.id AS build_id, v.package_name, v.version_name, v.version_code, v.build_type, v.file_size, v.sha256,
    v.signer_fingerprint, v.source, v.ci_run_id, v.git_sha, v.notes, v.uploaded_at, v.uploaded_by, v.state, v.refusal,
    v.published_at, v.is_current, v.replaces_id, v.staged_rollout_percent,
    v.rollout_filter - 'requirements' AS rollout_filter, v.wifi_only, v.must_install, v.promoted_at,
    v.promoted_by, v.paused_at, v.paused_reason, v.storage_url, v.file_path, v.object_version, v.audit,
    v.min_sdk, v.target_sdk, v.shared_user_id, v.plan, v.plan_stage, v.plan_stage_at, v.plan_ended_at, v.plan_end,
    CASE WHEN %(counted)s THEN s.statistics END AS statistics
FROM apk_versions v CROSS JOIN LATERAL (
    SELECT json_build_object(
        'issued', v.downloads_issued,
        'pending', count(*) FILTER (WHERE i.status = 'pending'),
        'downloading', count(*) FILTER (WHERE i.status = 'downloading'),
        'installing', count(*) FILTER (WHERE i.status = 'installing'),
        'completed', count(*) FILTER (WHERE i.status = 'completed' AND coalesce(runs.version, 0) = 0),
        'replaced', count(*) FILTER (WHERE i.status = 'completed' AND runs.version <> 0),
        'failed', count(*) FILTER (WHERE i.status = 'failed'),
        'unknown', count(*) FILTER (WHERE i.status = 'unknown')) AS statistics
    FROM apk_installations i JOIN devices d ON d.id = i.device_id
    CROSS JOIN LATERAL reported_version_v2(
        i.device_id, v.package_name, v.version_code, v.version_name, %(agent_package)s) AS runs
    WHERE %(counted)s AND i.apk_version_id = v.id AND i.initiated_at >= coalesce(d.taken_over_at, '-infinity')) AS s
WHERE (%(build_id)s IS NULL OR v.id = %(build_id)s)
  AND (%(package_name)s IS NULL OR v.package_name = %(package_name)s)
  AND (%(version_code)s IS NULL OR v.version_code = %(version_code)s)
  AND (%(build_type)s IS NULL OR v.build_type = %(build_type)s)
  AND (%(states)s::text[] IS NULL OR v.state = ANY (%(states)s::text[]))
  AND (%(current)s IS NULL OR v.is_current = %(current)s)
  AND (%(before)s IS NULL OR v.id < %(before)s)
ORDER BY v.id DESC LIMIT %(limit)s
