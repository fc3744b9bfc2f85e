"""Brings the schema to head inside the deploy, as CloudFormation's custom resource, and makes partitions ahead.

Create and Update migrate. Delete does nothing, and nothing ever downgrades: a database that is ahead of this code (a
rollback after a migration) is left as it is, since every revision fits the release before it. A failure is told to
CloudFormation with its cause: a person who deploys reads the stack's events before any log.
"""

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nexmdm.heartbeats import partitions
from nexmdm.runtime import database, invocations, logs, settings
from nexmdm.runtime.errors import Named
from nexmdm.schema import roles

from functions.migrate import custom_resource, reason
from functions.migrate.schema import upgrade

# Left for answering CloudFormation, which would otherwise wait for an hour.
MARGIN_SECONDS = 15
# For a database that resumes: 15 s, or more after a day.
PATIENCE_SECONDS = 120
PHYSICAL_ID = "nexmdm-schema"


class MigrationFailed(Named):
    """The schema was not brought to head; the text is what CloudFormation was told."""


@invocations.named
def handler(event: dict[str, object], context: Any) -> dict[str, object]:
    logs.begin(getattr(context, "aws_request_id", ""), getattr(context, "function_name", ""))
    if "ResponseURL" not in event:
        return _migrate(context)
    answer = custom_resource.Answer(event, PHYSICAL_ID)
    seconds = context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS
    late = threading.Timer(max(seconds, 0), answer.failed, ["the migration takes longer than the function may run"])
    late.daemon = True
    late.start()
    try:
        result = {} if event["RequestType"] == "Delete" else _migrate(context)
        answer.succeeded(result)
    except BaseException as error:
        cause = reason.of(error)
        logs.failure(error)
        logs.logger().error("migration failed", extra={"cause": cause})
        answer.failed(f"{cause} (log stream {getattr(context, 'log_stream_name', '')} has more)")
        # Without the chain, which Lambda would report with all its texts: a driver's may quote a value.
        raise MigrationFailed(cause) from None
    finally:
        late.cancel()
    return result


def _migrate(context: Any) -> dict[str, object]:
    if settings.load().database_admin_secret:
        roles.ensure(settings.load(), min(PATIENCE_SECONDS, _seconds_left(context)))
    seconds = _seconds_left(context)
    revision = upgrade(_migrations(), seconds)
    made = partitions.ensure_partitions(database.connection(), settings.load())
    return {"revision": revision, "partitions": made}


def _seconds_left(context: Any) -> float:
    return float(max(context.get_remaining_time_in_millis() / 1000 - 2 * MARGIN_SECONDS, 0))


def _migrations() -> Path:
    """The folder of the package `migrations`: a layer's in Lambda, beside `functions` on one machine."""
    package = find_spec("migrations")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the package `migrations` is not on the path")
    return Path(package.origin).parent
