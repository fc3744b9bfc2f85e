"""Invocations without a caller who waits: schedules, topics, CloudFormation.

Lambda puts the text of what a handler raises into the log and into the queue of failed events, where more people read
than may read secrets.
"""

import functools
from collections.abc import Callable
from typing import Any

from nexmdm.runtime import logs
from nexmdm.runtime.errors import Named
from nexmdm.runtime.settings import SettingsError

Handler = Callable[[dict[str, object], Any], Any]


class InvocationFailed(Named):
    """An unexpected error ended the invocation. The text is the error's type and SQLSTATE; the log has the stack."""


def named(handler: Handler) -> Handler:
    """A handler that ends in a `Named` error or none, without the chain of what caused it."""

    @functools.wraps(handler)
    def run(event: dict[str, object], context: Any) -> Any:
        try:
            return handler(event, context)
        except Named as error:
            if isinstance(error, SettingsError):  # of the others Lambda's own record says all
                logs.failure(error)
            error.__context__ = None
            raise error from None
        except Exception as error:
            logs.failure(error)
            code = getattr(error, "pgcode", None)
            text = f"{type(error).__qualname__}{f' ({code})' if code else ''}"
        raise InvocationFailed(f"{text}: see the log of this invocation")

    return run
