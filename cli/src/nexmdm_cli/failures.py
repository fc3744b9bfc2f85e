"""What a person is told when something does not work, and the exit codes that scripts read."""

from enum import IntEnum


class Code(IntEnum):
    """Exit codes; 0 is success, 130 is Ctrl-C."""

    FAILED = 1  # it was done, and did not come out well: a command failed or did not settle, `status` found something
    USAGE = 2  # the command line is wrong, or names no stack
    NOT_FOUND = 3  # there is no such device, command, build, token or route
    REFUSED = 4  # the API refuses it: a wrong value, a conflict, a build that is not what it was declared to be
    NOT_ALLOWED = 5  # no credentials, expired ones, or ones that may not do this
    UNAVAILABLE = 6  # no answer, or 5xx, after retries


class Failure(Exception):
    """Ends the command with a sentence on stderr.

    Args:
        message: what is wrong, naming the field or the limit.
        hint: what to do about it.
        errors: {path, detail} of each field that the API refused.
    """

    def __init__(
        self,
        message: str,
        code: Code = Code.FAILED,
        hint: str | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.hint, self.errors = message, code, hint, errors or []
