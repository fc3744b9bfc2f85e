"""All problems that a caller can get, each with its HTTP status.

A problem is returned as RFC 9457 `application/problem+json`; `detail` is where the old server had it.
"""

from typing import Any

from msgspec import UNSET

from nexmdm.runtime import problems
from nexmdm.runtime.problems import FieldError, Use


class Named(Exception):
    """An error whose text quotes no secret, so that it may appear in logs and in Lambda's reports."""


class Problem(Named):
    """A problem with a title. `detail` is for people: it names the field or the limit and says what to do.

    Args:
        members: additional members of the problem document.
    """

    status = 500
    title = "Internal error"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    def document(self) -> problems.Problem:
        return problems.Problem(
            type="about:blank", title=self.title, status=self.status, detail=self.detail, **self.members
        )


class Malformed(Problem):
    """The body is not valid JSON."""

    status, title = 400, "Malformed request"


class NotAuthenticated(Problem):
    """The credential is wrong. Never raised because of an outage: an agent that gets it five times enrolls again."""

    status, title = 401, "Not authenticated"


class NoCredential(Problem):
    """No credential was sent at all."""

    status, title = 403, "No credential"


class Forbidden(Problem):
    status, title = 403, "Forbidden"


class NotFound(Problem):
    status, title = 404, "Not found"


class UnknownDevice(NotFound):
    title = "Unknown device"


class Conflict(Problem):
    status, title = 409, "Conflict"


class TargetsChanged(Conflict):
    """The filter no longer selects the devices that the caller confirmed. Nothing was changed."""

    title = "Targets changed"

    def __init__(self, device_count: int, target_hash: str) -> None:
        super().__init__(
            f"The filter now selects other devices than in the preview ({device_count}). Preview it again.",
            code="targets_changed",
            device_count=device_count,
            target_hash=target_hash,
        )


class GroupInUse(Conflict):
    title = "Group in use"

    def __init__(self, name: str, used_by: list[Use]) -> None:
        users = ", ".join(f"{use.kind} {use.name}" for use in used_by[:3])
        more = f" and {len(used_by) - 3} more" if len(used_by) > 3 else ""
        super().__init__(
            f"The group {name!r} is used by {users}{more}. Change or remove these uses first.", used_by=used_by
        )


class NoSuchBuild(NotFound):
    title = "No such build"


class AliasTaken(Conflict):
    title = "Alias taken"


class Sending(Conflict):
    """The command is being sent at this moment, so its outcome is not known yet."""

    def __init__(self) -> None:
        super().__init__("The command is being sent at this moment. Try again.", headers={"Retry-After": "2"})


class DeviceDeleted(Problem):
    """An operator deleted the device. The agent recognizes `reason`."""

    status, title = 410, "Device deleted"

    def __init__(self) -> None:
        super().__init__("This device was deleted. Enroll it again to bring it back.", reason="device_deleted")


class TooLarge(Problem):
    status, title = 413, "Body too large"


class Invalid(Problem):
    """A field has an invalid value.

    Args:
        path: JSONPath of the field, such as `$.battery.pct`, or `query.limit`.
        column: the position of the error in the field's text, counted from 1.
    """

    status, title = 422, "Invalid field"

    def __init__(self, path: str, detail: str, *, column: int | None = None) -> None:
        self.errors = [FieldError(path=path, detail=detail, column=UNSET if column is None else column)]
        super().__init__(f"{path}: {detail}", errors=self.errors)


class InvalidRows(Problem):
    """Several rows of a list are invalid; the path in each error names the row."""

    status, title = 422, "Invalid rows"

    def __init__(self, errors: list[FieldError]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first.path}: {first.detail}{more}", errors=errors)


class BuildRefused(Problem):
    """A build differs from its declaration. `what` is the part that was checked."""

    status, title = 422, "Build refused"

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}", what=what, expected=expected, found=found)

    @classmethod
    def again(cls, detail: str) -> "BuildRefused":
        """The problem as it was first raised, from its stored detail."""
        what, _, rest = detail.partition(": expected ")
        return cls(what, *rest.split(", found ", 1))


class PayloadMismatch(Problem):
    """An idempotency key was used again for a different request."""

    status, title = 422, "Idempotency key reused"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id: {request_id!r} belongs to another command. Use a new one.")


class TooManyDownloads(Problem):
    """A device requested too many download URLs for one build within an hour."""

    status, title = 429, "Too many downloads"

    def __init__(self, most: int, build_id: int, retry_after: int) -> None:
        super().__init__(
            f"This device got {most} download URLs of build {build_id} within the hour. Wait {retry_after} s; a URL"
            " supports range requests, so an interrupted download can continue.",
            headers={"Retry-After": str(max(retry_after, 1))},
        )


class TooManyAttempts(Problem):
    """Too many registrations from the same IP address were rejected."""

    status, title = 429, "Too many attempts"

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            "Too many registrations from this IP address were rejected. Check the enrollment token and wait"
            f" {retry_after} s.",
            headers={"Retry-After": str(retry_after)},
        )


class Unavailable(Problem):
    """The database cannot be reached or cannot serve requests now. Nothing was lost; the caller may try again."""

    status, title = 503, "Temporarily unavailable"

    def __init__(self, detail: str = "The database is not available. Try again.", retry_after: int = 5) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})
