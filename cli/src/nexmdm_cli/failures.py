"""Failures with messages for people, and exit codes for scripts."""

from enum import IntEnum

IS_IT_ONE = "Is it the URL of a NexMDM stack of this version?"


class Code(IntEnum):
    """Exit codes; 0 is success, 130 is Ctrl-C."""

    FAILED = 1  # a command failed or did not settle, or `status` found a problem
    USAGE = 2  # invalid command line, or no stack was given
    NOT_FOUND = 3  # there is no such device, command, build, token or route
    REFUSED = 4  # rejected by the API: an invalid value, a conflict, or a build that differs from its declaration
    NOT_ALLOWED = 5  # missing or expired credentials, or missing permission
    UNAVAILABLE = 6  # no response, or 5xx, after retries


class Failure(Exception):
    """Ends the command with a message on stderr.

    Args:
        message: what is wrong, naming the field or the limit.
        hint: what to do about it.
        errors: {path, detail} of each field that the API rejected.
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
