"""What the API answers, as types: the rows that verbs read, with what may be null. `tests/system/fuzz` holds them true.

An answer has exactly these members in this version; clients ignore those that they do not know.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from nexmdm.builds.plans import PlanStatus
from nexmdm.commands.single import AuditEntry
from nexmdm.commands.states import Answered, Delivery, DispatchState

Instant = Annotated[datetime, Meta(tz=True)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Seconds = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Percent = Annotated[int, Meta(ge=0, le=100)]


class Answer(Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class FieldError(Answer):
    """`path` is a JSONPath into the body, or query., path. or header. with a name."""

    path: str
    detail: str
    column: Annotated[int, Meta(ge=1, description="of a selector: where in it")] | UnsetType = UNSET


class Use(Answer):
    """What uses a group."""

    kind: str
    name: str


class Problem(Answer):
    """RFC 9457. `detail` is read by people: it names the field or the limit and says what to do."""

    type: Literal["about:blank"]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    errors: list[FieldError] | UnsetType = UNSET
    reason: Annotated[str, Meta(description="of a 410, which the agent knows")] | UnsetType = UNSET
    what: Annotated[str, Meta(description="of a refused build: what was looked at")] | UnsetType = UNSET
    expected: str | UnsetType = UNSET
    found: str | UnsetType = UNSET
    code: Annotated[str, Meta(description="of a 409: targets_changed")] | UnsetType = UNSET
    device_count: Annotated[int, Meta(description="of targets_changed: devices now")] | UnsetType = UNSET
    target_hash: Annotated[str, Meta(description="of targets_changed: the set now")] | UnsetType = UNSET
    used_by: Annotated[list[Use], Meta(description="of a group that is in use")] | UnsetType = UNSET


class GatewayMessage(Answer):
    """What API Gateway says itself: no such route, no valid signature, too large, too many, out of order."""

    message: str | None


class Registered(Answer):
    """`device_token` is in this answer and nowhere else."""

    device_token: str
    device_id: str


class Update(Answer):
    """A newer build that this device is offered."""

    build_id: int
    version_code: int
    version_name: str
    package_name: str
    sha256: Sha256
    signer_fingerprint: Sha256
    file_size: int
    wifi_only: bool
    must_install: bool
    staged_rollout_percent: Percent
    download_url: str
    release_notes: str | None


class DownloadAddress(Answer):
    """Ends after 300 s; takes ranges."""

    download_url: str
    sha256: Sha256
    file_size: int


class NewEnrollmentToken(Answer):
    token_id: str
    alias: str
    scope: Literal["register", "apk_download"]
    expires_at: Instant
    uses_allowed: int
    labels: dict[str, str]
    token: str


class NewEnrollmentTokens(Answer):
    """In the order of the aliases."""

    items: list[NewEnrollmentToken]


class EnrollmentToken(Answer):
    token_id: str
    alias: str
    scope: Literal["register", "apk_download"]
    issued_by: str | None
    issued_at: Instant
    expires_at: Instant
    uses_allowed: int
    uses_consumed: int
    last_used_at: Instant | None
    note: str | None
    labels: dict[str, str]
    status: Literal["active", "exhausted", "revoked", "expired"]
    device_id: str | None
    used_at: Instant | None


class Revoked(Answer):
    """The ids of those that there were."""

    revoked: list[str]


class Statistics(Answer):
    """`issued` counts download addresses; the others are installations."""

    issued: Count
    pending: Count
    downloading: Count
    installing: Count
    completed: Count
    failed: Count
    unknown: Count
    replaced: Count


class Build(Answer):
    """A build. Some members are null for one that was adopted from an old server. A list has no `warnings`."""

    build_id: int
    package_name: str
    version_name: str
    version_code: int
    build_type: str | None
    file_size: int
    sha256: Sha256 | None
    signer_fingerprint: str | None
    source: Literal["manual", "ci"] | None
    ci_run_id: str | None
    git_sha: str | None
    notes: str | None
    uploaded_at: Instant
    uploaded_by: str | None
    state: Literal["declared", "awaiting_signer", "published", "refused", "withdrawn", "adopted"]
    refusal: str | None
    published_at: Instant | None
    is_current: bool
    replaces_id: int | None
    staged_rollout_percent: Percent
    rollout_filter: dict[str, Any] | None
    wifi_only: bool
    must_install: bool
    promoted_at: Instant | None
    promoted_by: str | None
    paused_at: Instant | None
    paused_reason: str | None
    storage_url: str | None
    audit: list[AuditEntry]
    min_sdk: int | None
    target_sdk: int | None
    shared_user_id: str | None
    plan: PlanStatus | None
    statistics: Statistics
    warnings: list[str] | UnsetType = UNSET


class DeclaredBuild(Build, kw_only=True):
    """The address is null when the build is published already; a new build has no statistics yet."""

    upload_url: str | None
    upload_headers: dict[str, str] | None
    upload_expires_in: int | None
    statistics: Statistics | UnsetType = UNSET  # type: ignore[assignment]  # goes with this module


class InstallCommands(Answer):
    """The bulk command that was made; without one every device of the cohort has the build or was asked."""

    request_id: str | None
    device_count: Count
    states: dict[DispatchState, int]
    cohort_devices: Count
    newer_devices: Count
    action: str | UnsetType | None = UNSET
    delivery: Delivery | UnsetType | None = UNSET
    answered: Answered | UnsetType | None = UNSET
    selector: dict[str, Any] | UnsetType = UNSET
    created_by: str | UnsetType = UNSET
    created_at: Instant | UnsetType = UNSET


class InstallingBuild(Build, kw_only=True):
    install: InstallCommands


class Signer(Answer):
    fingerprint: Sha256
    pinned_at: Instant
    pinned_by: str


class Signers(Answer):
    items: list[Signer]


class EnrollmentTokenPage(Answer):
    items: list[EnrollmentToken]
    next_cursor: str | None


class BuildPage(Answer):
    items: list[Build]
    next_cursor: str | None
