"""The scheduled watch: evaluates alert rules and sends notifications. Two concurrent runs open and notify once."""

from typing import Any

from msgspec import UNSET, to_builtins
from nexmdm.alerts import evaluation, history, notifications
from nexmdm.runtime import database, invocations, logs, metrics, settings

from functions.watch import topic


@invocations.named
def handler(_event: dict[str, object], context: Any) -> dict[str, object]:
    """Returns {"conditions": {condition: {"opened", "recovered"} or {"error"}}, "told": number of notified alerts}."""
    logs.begin(context.aws_request_id, context.function_name)
    database.begin(context)
    db, config = database.connection(), settings.load()
    try:
        found = evaluation.evaluate(db, config)
        history.record_hour(db, config)
        report = {"conditions": to_builtins(found), "told": _tell(db, config)}
        # A run that finds a notification under the lease of a failed run has not succeeded either.
        complete = not any(each.error is not UNSET for each in found.values()) and not notifications.waiting(db)
        metrics.count("WatchSucceeded", int(complete))
        return report
    finally:
        metrics.flush()


def _tell(db: database.Executor, config: settings.Settings) -> int:
    """Send one message per set of routes. No transaction is open while the topic is called."""
    told = 0
    while notification := notifications.claim(db, config.powertools_service_name):
        try:
            topic.publish(config, notification)
        except topic.NotTaken:
            notifications.release(db, notification.claim_id)
            raise
        told += notifications.settle(db, notification.claim_id)
    return told
