"""Migrates the schema during the deploy, as a custom resource of CloudFormation, and creates future partitions.

Create and Update migrate. Delete does nothing, and nothing ever downgrades: a database that is newer than this code (a
rollback after a migration) is not changed, because every revision works with the previous release. A failure is
reported to CloudFormation with its cause, because people who deploy read the stack's events before any log.
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

# Reserved for the response to CloudFormation, which would otherwise wait for 16 minutes.
MARGIN_SECONDS = 15
# For a database that is resuming, which takes 15 s, or more after a day.
PATIENCE_SECONDS = 120
PHYSICAL_ID = "nexmdm-schema"


class MigrationFailed(Named):
    """The migration failed; the text is the reason that was reported to CloudFormation."""


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
        # Without the exception chain, whose texts Lambda would report; a driver's text may quote a value.
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
    """The folder of the package `migrations`: in a layer in Lambda, next to `functions` in a checkout."""
    package = find_spec("migrations")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the package `migrations` is not on the path")
    return Path(package.origin).parent
