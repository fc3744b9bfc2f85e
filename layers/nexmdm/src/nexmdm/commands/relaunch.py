"""Restart monitored apps that are not in the foreground, if AUTO_RELAUNCH is on.

The sweep does this, because the heartbeat function may not create commands.
"""

import time

from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, elapsed_ms, statement
from nexmdm.runtime.settings import Settings

MOST_IN_A_SWEEP = 500
TTL_SECONDS = 600


def relaunch(db: Executor, actor: Actor, config: Settings) -> int:
    """Create a launch_app for each device whose app is installed but not in the foreground; return how many.

    At most one per device and half hour; the sweep sends them like any command.
    """
    if not config.auto_relaunch:
        return 0
    start = time.perf_counter()
    parameters = {
        **actor.parameters(),
        "app_package": config.unity_package,
        "threshold": config.app_background_seconds,
        "interval_seconds": config.heartbeat_interval_seconds,
        "ttl_seconds": TTL_SECONDS,
        "limit": MOST_IN_A_SWEEP,
    }
    made = db.execute(_RELAUNCH, parameters, repeatable=True)
    if made:
        keys = {"relaunched": len(made), "request_ids": [row["request_id"] for row in made[:10]]}
        logs.db_operation("create", "fcm_dispatches", keys, elapsed_ms(start))
        metrics.count("AppRelaunched", len(made))
    return len(made)


_RELAUNCH = statement(__package__, "relaunch")
