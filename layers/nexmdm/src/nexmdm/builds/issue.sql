-- Issues the download URL of a build: of `build_id`, or else of the build of `package_name` that is offered to the
-- caller. The caller is a device, or the enrollment token of a factory-reset phone, which may download only builds of
-- the agent; the download does not count as a use of the token. A device gets a build that it is offered or was asked
-- to install since it was last taken over, but none that is paused or rolled back. The event, the build's counter and
-- the start of the installation are written in the same statement. No row: the token is not valid. `event_id` null:
-- there is no build for the caller, or, with `retry_after`, the device got too many URLs of this build within the hour.
WITH device AS MATERIALIZED (
    SELECT * FROM authenticate_device_v1(%(token_id)s)
), caller AS MATERIALIZED (
    SELECT id AS device_id, NULL::text AS enrollment, deleted_at IS NOT NULL AS deleted FROM device
    UNION ALL
    SELECT NULL, token_id, false FROM enrollment_tokens
    WHERE token_hash = %(token_hash)s AND scope = 'apk_download' AND status = 'active'
      AND expires_at > statement_timestamp() AND NOT EXISTS (SELECT FROM device)
), looked_at AS (
    UPDATE enrollment_tokens t SET last_used_at = statement_timestamp() FROM caller WHERE t.token_id = caller.enrollment
), offered AS MATERIALIZED (
    SELECT offered_build_v1(caller.device_id, coalesce(%(package_name)s,
        (SELECT package_name FROM apk_versions WHERE id = %(build_id)s)), %(interval_seconds)s) AS id
    FROM caller
), chosen AS MATERIALIZED (
    SELECT v.* FROM apk_versions v CROSS JOIN caller
    WHERE v.id = coalesce(%(build_id)s, (SELECT id FROM offered))
      AND v.state = 'published' AND v.paused_at IS NULL AND CASE
        WHEN caller.device_id IS NULL THEN v.package_name = %(agent_package)s
        ELSE v.id IN (SELECT id FROM offered) OR EXISTS (
            SELECT FROM apk_installations i JOIN devices d ON d.id = i.device_id
            WHERE i.device_id = caller.device_id AND i.apk_version_id = v.id
              AND i.initiated_at >= coalesce(d.taken_over_at, '-infinity')) END
), rated AS (
    -- The row's lock serializes concurrent downloads, so each sees the URLs that the others got. Only instants within
    -- the hour are kept, so a row has at most `most` of them.
    INSERT INTO apk_download_rates AS r (device_id, build_id, issued, last_at)
    SELECT caller.device_id, chosen.id, ARRAY[clock_timestamp()], clock_timestamp()
    FROM chosen CROSS JOIN caller WHERE NOT caller.deleted AND caller.device_id IS NOT NULL
    ON CONFLICT (device_id, build_id) DO UPDATE SET last_at = clock_timestamp(), issued = ARRAY(
        SELECT at FROM unnest(r.issued) AS at WHERE at > clock_timestamp() - make_interval(secs => %(seconds)s)
    ) || clock_timestamp()
    WHERE (SELECT count(*) FROM unnest(r.issued) AS at
           WHERE at > clock_timestamp() - make_interval(secs => %(seconds)s)) < %(most)s
    RETURNING device_id
), event AS (
    INSERT INTO apk_download_events (build_id, source, token_id, device_id, ip, ts)
    SELECT chosen.id, 'enrollment', caller.enrollment, caller.device_id, %(ip)s, clock_timestamp()
    FROM chosen CROSS JOIN caller
    WHERE NOT caller.deleted AND (caller.device_id IS NULL OR EXISTS (SELECT FROM rated))
    RETURNING id, build_id
), counted AS (
    UPDATE apk_versions v SET downloads_issued = v.downloads_issued + 1 FROM event WHERE v.id = event.build_id
), begun AS (
    UPDATE apk_installations i SET status = 'downloading' FROM event, caller
    WHERE i.id = %(installation_id)s AND i.device_id = caller.device_id AND i.apk_version_id = event.build_id
      AND i.status = 'pending'
)
SELECT caller.device_id, caller.deleted, event.id AS event_id, chosen.id AS build_id, chosen.package_name,
    chosen.version_name, chosen.version_code, chosen.build_type, chosen.file_size, chosen.sha256,
    chosen.signer_fingerprint, chosen.file_path, chosen.object_version, chosen.wifi_only, chosen.must_install,
    chosen.staged_rollout_percent, chosen.notes,
    CASE WHEN chosen.id IS NOT NULL AND caller.device_id IS NOT NULL AND NOT EXISTS (SELECT FROM rated) THEN (
        SELECT coalesce(ceil(extract(epoch FROM
            min(at) + make_interval(secs => %(seconds)s) - clock_timestamp()))::integer, 60)
        FROM apk_download_rates r CROSS JOIN unnest(r.issued) AS at
        WHERE r.device_id = caller.device_id AND r.build_id = chosen.id
          AND at > clock_timestamp() - make_interval(secs => %(seconds)s)) END AS retry_after
FROM caller LEFT JOIN chosen ON true LEFT JOIN event ON true
