"""What a function does while Lambda initialises it, so that its first request need not.

Lambda initialises at full processor and then gives a function the share of its memory: 0.145 of one at 256 MB. The same
imports and the same login cost a request seven times as much as they cost here. Outside of Lambda nothing happens.
"""

from collections.abc import Callable
from contextlib import suppress

from nexmdm.runtime import database, logs, settings


def warm_up(*prepare: Callable[[], object]) -> None:
    """Load what the first request needs and log in to the database. To be called at the end of a handler's module.

    A failure is silent: the first request tries the same again, and answers or records what it finds. An environment
    that is made long before it is used (provisioned concurrency, SnapStart) opens no connection, which would be stale.

    Args:
        prepare: what this function needs besides, each without arguments.
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
