"""Start the monitored app again, where AUTO_RELAUNCH asks for it and it is not in front.

The sweep does it: the function that takes heartbeats cannot make commands.
"""

import time

from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, elapsed_ms, statement
from nexmdm.runtime.settings import Settings

MOST_IN_A_SWEEP = 500
TTL_SECONDS = 600


def relaunch(db: Executor, actor: Actor, config: Settings) -> int:
    """Make a launch_app for each device whose app is installed and not in front; returns how many were made.

    At most one for each device and half hour, sent by the sweep like any command.
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
