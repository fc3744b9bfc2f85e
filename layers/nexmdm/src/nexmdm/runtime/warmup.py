"""Work that a function does during its initialization, so that its first request is faster.

Lambda initializes a function with a full CPU and then limits it to a share that depends on its memory: 0.145 CPUs at
256 MB. The same imports and login would take a request seven times as long. Outside Lambda nothing happens.
"""

from collections.abc import Callable
from contextlib import suppress

from nexmdm.runtime import database, logs, settings


def warm_up(*prepare: Callable[[], object]) -> None:
    """Load what the first request needs and log in to the database. Call this at the end of a handler's module.

    A failure is ignored: the first request tries again, and reports or logs its result. An environment that is created
    long before its first request (provisioned concurrency, SnapStart) opens no connection, because it would be stale.

    Args:
        prepare: further preparations of this function, callables without arguments.
    """
    kind = settings.initialization_type()
    if kind is None:
        return
    steps: list[Callable[[], object]] = [logs.logger, _load_signer, *prepare]
    if kind == "on-demand":
        steps.append(_log_in)
    for step in steps:
        with suppress(Exception):
            step()


def _load_signer() -> None:
    from botocore.auth import SigV4QueryAuth  # noqa: F401  a login is signed with it
    from botocore.awsrequest import AWSRequest  # noqa: F401


def _log_in() -> None:
    database.connection().open()
