"""What devices say of the installations they were asked for, and the rollout that pauses itself when too many fail.

    pending -> downloading -> installing -> completed | failed

A finished installation stays as it is, and settles the command that asked for it.
"""

import time
from typing import Literal

from msgspec import Struct

from nexmdm.devices.registry import AUTHENTICATED, authenticated, token_id
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.database import Executor, elapsed_ms
from nexmdm.runtime.errors import NotFound
from nexmdm.runtime.settings import Settings


class Progress(Struct):
    """One report. `percent` of the download, when the device knows it."""

    installation_id: int
    status: Literal["downloading", "installing", "completed", "failed"]
    percent: int | None = None
    error: str | None = None


def report(db: Executor, token: str, progress: Progress, config: Settings) -> str:
    """Record a device's report on one of its installations; returns the status as it stands. Safe to repeat.

    Raises:
        NotFound: the device has no such installation.
    """
    start = time.perf_counter()
    parameters = {
        "token_id": token_id(token),
        "installation_id": progress.installation_id,
        "status": progress.status,
        "percent": None if progress.percent is None else min(max(progress.percent, 0), 100),
        "error": progress.error and progress.error[:1000],
        "least": config.rollout_pause_installations,
        "most_failed": config.rollout_pause_failed_percent,
    }
    row = authenticated(db.execute(_REPORT, parameters, repeatable=True))
    if row["status"] is None:
        raise NotFound(f"There is no installation {progress.installation_id} of this device.")
    keys = {"id": progress.installation_id, "device_id": row["device_id"], "status": row["status"]}
    logs.db_operation("update" if row["moved"] else "idempotency_hit", "apk_installations", keys, elapsed_ms(start))
    if row["paused"]:
        metrics.count("RolloutPaused")
        keys = {"build_id": row["paused"], "rollout": "pause", "by": "failed installations"}
        logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))
    return row["status"]


_FINISHED = "('completed', 'failed')"
_OVERDUE = """(v.rollout_completed + v.rollout_failed + 1 >= %(least)s
        AND 100 * (v.rollout_failed + 1) > %(most_failed)s * (v.rollout_completed + v.rollout_failed + 1))"""

# A late report never takes a status back. The counts are kept on the build's row, whose lock makes those who finish at
# once take turns: each sees all that came before.
_REPORT = f"""
WITH {AUTHENTICATED}, own AS (
    SELECT i.id, i.status FROM apk_installations i JOIN device ON device.id = i.device_id
    WHERE i.id = %(installation_id)s AND device.deleted_at IS NULL
), moved AS (
    UPDATE apk_installations i SET
        status = CASE WHEN i.status = 'installing' AND %(status)s = 'downloading' THEN i.status ELSE %(status)s END,
        download_progress = CASE WHEN %(status)s IN ('installing', 'completed') THEN 100
                                 ELSE greatest(%(percent)s, i.download_progress) END,
        error_message = coalesce(%(error)s, i.error_message),
        completed_at = CASE WHEN %(status)s IN {_FINISHED} THEN clock_timestamp() END
    FROM own WHERE i.id = own.id AND i.status NOT IN {_FINISHED}
    RETURNING i.id, i.device_id, i.apk_version_id, i.status, i.request_id, i.error_message
), counted AS (
    UPDATE apk_versions v SET
        rollout_completed = v.rollout_completed + (moved.status = 'completed')::integer,
        rollout_failed = v.rollout_failed + (moved.status = 'failed')::integer,
        paused_at = CASE WHEN {{pausing}} THEN clock_timestamp() ELSE v.paused_at END,
        paused_reason = CASE WHEN {{pausing}} THEN v.rollout_failed + 1 || ' of ' ||
            v.rollout_completed + v.rollout_failed + 1 || ' installations failed' ELSE v.paused_reason END,
        audit = CASE WHEN {{pausing}} THEN v.audit || jsonb_build_object('event', 'pause', 'by', 'failed installations',
            'at', clock_timestamp(), 'failed', v.rollout_failed + 1,
            'finished', v.rollout_completed + v.rollout_failed + 1) ELSE v.audit END
    FROM moved WHERE v.id = moved.apk_version_id AND moved.status IN {_FINISHED}
    RETURNING CASE WHEN v.paused_at >= statement_timestamp() AND moved.status = 'failed' THEN v.id END AS paused
), settled AS MATERIALIZED (
    SELECT complete_command_v1(request_id, device_id, status, error_message) AS first
    FROM moved WHERE status IN {_FINISHED}
)
SELECT device.id AS device_id, device.deleted_at IS NOT NULL AS deleted, EXISTS (SELECT FROM moved) AS moved,
    coalesce((SELECT status FROM moved), (SELECT status FROM own)) AS status, (SELECT paused FROM counted) AS paused,
    (SELECT first FROM settled) AS settled
FROM device
""".replace("{pausing}", f"v.is_current AND v.paused_at IS NULL AND moved.status = 'failed' AND {_OVERDUE}")
