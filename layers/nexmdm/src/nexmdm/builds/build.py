"""The rows of builds: identity, offered build, and stored build."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from nexmdm.devices.filters import Filter
from nexmdm.runtime.database import Row
from nexmdm.runtime.errors import Conflict

Count = Annotated[int, Meta(ge=0)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Identity(Struct, kw_only=True):
    """The identity of a build, and the values that devices receive."""

    build_id: int
    package_name: str
    build_type: str | None
    version_name: str
    version_code: int
    file_size: int


class StoredFile(Struct, frozen=True, kw_only=True):
    """The location and contents of a build's file. `object_version` is set when the build is verified."""

    key: str
    object_version: str | None
    name: str
    size: int
    sha256: str
    signer_fingerprint: str


class Offered(Identity, kw_only=True):
    """A published build that a caller may download."""

    sha256: str
    signer_fingerprint: str
    file_path: str
    object_version: str | None
    wifi_only: bool
    must_install: bool
    staged_rollout_percent: int
    notes: str | None

    @property
    def file(self) -> StoredFile:
        return _stored_file(self, self.file_path, self.sha256, self.signer_fingerprint)


class Statistics(Struct, forbid_unknown_fields=True, kw_only=True):
    """`issued` counts download URLs; the other members count installations."""

    issued: Count
    pending: Count
    downloading: Count
    installing: Count
    completed: Count
    failed: Count
    unknown: Count
    replaced: Count


# An entry of a build's audit: `commands.single.AuditEntry`, with further members that depend on the event.
AuditRecord: TypeAlias = dict[str, Any]
# `plans.Plan` as its column keeps it; that module stands on this one.
PlanDocument: TypeAlias = dict[str, Any]


class StoredBuild(Identity, kw_only=True):
    """All values of a build. Some members are None for a build adopted from an old server.

    Attributes:
        plan: written by `plans.Plan`, read by `plans.shown`.
        statistics: None for a build that was just declared.
    """

    file_path: str | None
    object_version: str | None
    sha256: str | None
    signer_fingerprint: str | None
    source: Literal["manual", "ci"] | None
    ci_run_id: str | None
    git_sha: str | None
    notes: str | None
    uploaded_at: datetime
    uploaded_by: str | None
    state: str
    refusal: str | None
    published_at: datetime | None
    is_current: bool
    replaces_id: int | None
    staged_rollout_percent: int
    rollout_filter: Filter | None
    wifi_only: bool
    must_install: bool
    promoted_at: datetime | None
    promoted_by: str | None
    paused_at: datetime | None
    paused_reason: str | None
    storage_url: str | None
    audit: list[AuditRecord]
    min_sdk: int | None
    target_sdk: int | None
    shared_user_id: str | None
    plan: PlanDocument | None
    plan_stage: int | None
    plan_stage_at: datetime | None
    plan_ended_at: datetime | None
    plan_end: str | None
    statistics: Statistics | None = None

    @property
    def file(self) -> StoredFile:
        """Its file.

        Raises:
            Conflict: it has no file, because it comes from an old server.
        """
        if self.file_path is None or self.sha256 is None or self.signer_fingerprint is None:
            raise Conflict(f"The build is {self.state}; its file is not available.")
        return _stored_file(self, self.file_path, self.sha256, self.signer_fingerprint)


def _stored_file(build: Offered | StoredBuild, key: str, sha256: str, signer_fingerprint: str) -> StoredFile:
    return StoredFile(
        key=key,
        object_version=build.object_version,
        name=_file_name(build),
        size=build.file_size,
        sha256=sha256,
        signer_fingerprint=signer_fingerprint,
    )


def stored(row: Row) -> StoredBuild:
    return msgspec.convert(row, StoredBuild)


def offered(row: Row) -> Offered:
    """The offered build from a row with more columns."""
    return msgspec.convert(row, Offered)


def _file_name(build: Identity) -> str:
    return f"{build.package_name}-{build.version_code}-{build.build_type}.apk"
