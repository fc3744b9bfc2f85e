"""The scheduled cleanup. With the event {"dry_run": true} it only counts."""

from typing import Any

from msgspec import Struct, to_builtins
from nexmdm.retention import run
from nexmdm.runtime import database, invocations, logs, metrics, settings

# Reserved for the last step, and for writing metrics and logs.
MARGIN_SECONDS = 10


@invocations.named
def handler(event: dict[str, object], context: Any) -> dict[str, object]:
    logs.begin(getattr(context, "aws_request_id", ""), getattr(context, "function_name", ""))
    database.begin(context)
    db, config = database.connection(), settings.load()
    if event.get("dry_run") is True:
        return _plain(run.dry_run(db, config))
    try:
        return _plain(run.clean(db, config, lambda: context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS))
    finally:
        metrics.flush()


def _plain(report: Struct) -> dict[str, object]:
    """As JSON, which is what Lambda returns."""
    plain: dict[str, object] = to_builtins(report)
    return plain
