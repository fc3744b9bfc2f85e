"""Asynchronous invocations: schedules, topics, CloudFormation.

Lambda writes the text of a handler's exception to the log and to the queue of failed events, which more people may read
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
    """Wrap a handler so that it raises only `Named` errors, without the chain of their causes."""

    @functools.wraps(handler)
    def run(event: dict[str, object], context: Any) -> Any:
        try:
            return handler(event, context)
        except Named as error:
            if isinstance(error, SettingsError):  # Lambda's own record has everything about the others
                logs.failure(error)
            error.__context__ = None
            raise error from None
        except Exception as error:
            logs.failure(error)
            code = getattr(error, "pgcode", None)
            text = f"{type(error).__qualname__}{f' ({code})' if code else ''}"
        raise InvocationFailed(f"{text}: see the log of this invocation")

    return run
