"""The scheduled watch: find what changed about the fleet, tell it. Two at once find and tell it once."""

from typing import Any

from nexmdm.alerts import evaluation, notifications
from nexmdm.runtime import database, invocations, logs, metrics, settings

from functions.watch import topic


@invocations.named
def handler(_event: dict[str, Any], context: Any) -> dict[str, Any]:
    """{"conditions": {condition: {"opened", "recovered"} or {"error"}}, "told": of how many alerts}"""
    logs.begin(context.aws_request_id, context.function_name)
    database.begin(context)
    db, config = database.connection(), settings.load()
    try:
        found = evaluation.look(db, config)
        report = {"conditions": found, "told": _tell(db, config)}
        # A run that finds a notice under the lease of one that failed has not succeeded either.
        complete = not any("error" in each for each in found.values()) and not notifications.waiting(db)
        metrics.count("WatchSucceeded", int(complete))
        return report
    finally:
        metrics.flush()


def _tell(db: database.Executor, config: settings.Settings) -> int:
    """No transaction is open while the topic is called."""
    notice = notifications.claim(db, config.powertools_service_name)
    if notice is None:
        return 0
    try:
        topic.publish(config, notice)
    except topic.NotTaken:
        notifications.release(db, notice.claim_id)
        raise
    return notifications.settle(db, notice.claim_id)
