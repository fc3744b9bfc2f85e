-- The uses of a group that prevent its deletion: among others, the rollouts of current builds, and of the builds that
-- they fall back on for devices that are not offered them. A group that only an older build names may be deleted; that
-- build is then offered to no device. Every table that stores a filter needs a branch here.
CREATE OR REPLACE VIEW device_group_uses AS
WITH RECURSIVE build AS (
    SELECT id, replaces_id, is_current, package_name, version_name, rollout_filter,
        state = 'published' AND paused_at IS NULL AND staged_rollout_percent = 100 AND rollout_filter IS NULL AS for_all
    FROM apk_versions
), offered AS (
    SELECT build.*, 1 AS place FROM build WHERE is_current
    UNION ALL
    SELECT build.*, offered.place + 1 FROM offered JOIN build ON build.id = offered.replaces_id
    WHERE offered.place < 100 AND NOT offered.for_all
)
SELECT rollout_filter ->> 'group' AS group_name, 'rollout' AS kind,
    package_name || ' ' || version_name || ' (build ' || id || ')' AS name
FROM offered WHERE rollout_filter ? 'group'
UNION ALL
SELECT group_name, 'schedule', name FROM schedules WHERE group_name IS NOT NULL
UNION ALL
SELECT filter ->> 'group', 'alert_rule', name FROM alert_rules WHERE filter ? 'group'
UNION ALL
SELECT filter ->> 'group', 'mute', mute_id::text FROM alert_mutes WHERE filter ? 'group' AND until > statement_timestamp()
