"""What is worth an alert: one query per condition, which finds the living devices that are in it now.

    silent           the server has not heard from the device for three intervals (never: since it was enrolled)
    low_battery      its last report says less than LOW_BATTERY_PCT
    unity_down       its last report says that Unity does not run
    queue_growing    it holds back QUEUE_DEPTH reports or more, and more than in each of its reports of a while
    agent_outdated   its agent is older than the build that it has been offered for ALERT_ROLLOUT_HOURS

Each answers `device_id` and `detail`, what a notice may add. A device that falls silent keeps its other conditions:
nothing says that they are over.
"""

from typing import Any

from nexmdm.devices.cohort import in_rollout
from nexmdm.devices.lists import LOW_BATTERY_PCT
from nexmdm.runtime.settings import Settings

QUEUE_DEPTH = 10


def parameters(config: Settings) -> dict[str, Any]:
    """What the queries take."""
    return {
        "interval_seconds": config.heartbeat_interval_seconds,
        "bucket_seconds": config.heartbeat_bucket_seconds,
        "low_battery_pct": LOW_BATTERY_PCT,
        "queue_depth": QUEUE_DEPTH,
        "agent_package": config.agent_package,
        "rollout_hours": config.alert_rollout_hours,
    }


_SILENT = """
SELECT d.id AS device_id, jsonb_build_object('last_seen_at', l.last_seen_at) AS detail
FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL AND NOT device_online(coalesce(l.last_seen_at, d.created_at), %(interval_seconds)s)
"""

_LOW_BATTERY = """
SELECT d.id AS device_id, jsonb_build_object('battery_pct', l.battery_pct, 'plugged', l.plugged) AS detail
FROM devices d JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL AND l.battery_pct < %(low_battery_pct)s
"""

_UNITY_DOWN = """
SELECT d.id AS device_id, jsonb_build_object('unity_pkg_version', l.unity_pkg_version) AS detail
FROM devices d JOIN device_last_status l ON l.device_id = d.id
WHERE d.deleted_at IS NULL AND l.unity_running IS FALSE
"""

# The last report against those of four intervals before it: three of them, or two when one was lost. One bucket more,
# because a bucket begins before its report. Only who holds much back is looked up, by the heartbeats' unique index.
_QUEUE_GROWING = """
SELECT d.id AS device_id, jsonb_build_object('queue_depth', l.queue_depth, 'before', before.least) AS detail
FROM devices d JOIN device_last_status l ON l.device_id = d.id
CROSS JOIN LATERAL (
    SELECT count(*) AS reports, min(h.queue_depth) AS least, max(h.queue_depth) AS most
    FROM device_heartbeats h
    WHERE h.device_id = d.id AND h.ts < l.last_ts AND h.bucket <= l.last_ts
      AND h.bucket > statement_timestamp()
          - make_interval(secs => 4 * %(interval_seconds)s::float8 + %(bucket_seconds)s)
) AS before
WHERE d.deleted_at IS NULL AND l.queue_depth >= %(queue_depth)s
  AND before.reports >= 2 AND l.queue_depth > before.most
"""

# The chain of `nexmdm.builds.downloads` for all devices at once: it ends at the first build that everyone is offered.
# Agents report a name, not a code: a published name is as new as its newest build, any other is older than all.
_AGENT_OUTDATED = f"""
WITH RECURSIVE chain AS (
    SELECT v.*, 1 AS place FROM apk_versions v
    WHERE v.package_name = %(agent_package)s AND v.build_type = 'release' AND v.is_current
    UNION ALL
    SELECT v.*, chain.place + 1 FROM chain JOIN apk_versions v ON v.id = chain.replaces_id
    WHERE chain.place < 100
      AND NOT (chain.state = 'published' AND chain.paused_at IS NULL AND chain.staged_rollout_percent = 100
          AND chain.rollout_filter IS NULL)
), offered AS MATERIALIZED (
    SELECT id, place, version_name, version_code, staged_rollout_percent, rollout_filter,
        -- The last change of the rollout: from then on its cohort was to have it.
        coalesce((audit -> -1 ->> 'at')::timestamptz, promoted_at)
            <= statement_timestamp() - make_interval(hours => %(rollout_hours)s) AS due
    FROM chain WHERE state = 'published' AND paused_at IS NULL
), named AS MATERIALIZED (
    SELECT version_name, max(version_code) AS version_code FROM apk_versions
    WHERE package_name = %(agent_package)s AND state IN ('published', 'adopted') GROUP BY version_name
), older AS MATERIALIZED (
    -- Only of these is it asked what they are offered, which costs a hash.
    SELECT d.id, l.agent_version, coalesce(n.version_code, -1) AS version_code
    FROM devices d JOIN device_last_status l ON l.device_id = d.id
    LEFT JOIN named n ON n.version_name = l.agent_version
    WHERE d.deleted_at IS NULL AND l.agent_version IS NOT NULL
      AND coalesce(n.version_code, -1) < (SELECT max(version_code) FROM offered WHERE due)
)
SELECT d.id AS device_id, jsonb_build_object('agent_version', d.agent_version, 'offered', o.version_name) AS detail
FROM older d CROSS JOIN LATERAL (
    SELECT version_name, version_code, due FROM offered
    WHERE {in_rollout("offered", "d.id")}
    ORDER BY place LIMIT 1
) AS o
WHERE o.due AND d.version_code < o.version_code
"""

CONDITIONS = {
    "silent": _SILENT,
    "low_battery": _LOW_BATTERY,
    "unity_down": _UNITY_DOWN,
    "queue_growing": _QUEUE_GROWING,
    "agent_outdated": _AGENT_OUTDATED,
}
