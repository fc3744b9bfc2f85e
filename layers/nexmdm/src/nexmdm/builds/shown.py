"""Builds in API responses: without internal values, but with warnings for operators."""

from typing import Any, Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType, structs

from nexmdm.builds import plans, publishing, urls
from nexmdm.builds.build import Count, Identity, Percent, Sha256, Statistics, StoredBuild
from nexmdm.builds.plans import PlanStatus
from nexmdm.commands.batches import Asked, Batch
from nexmdm.commands.single import AuditEntry
from nexmdm.commands.states import Answered, Delivery, DispatchState
from nexmdm.devices.filters import Filter
from nexmdm.devices.targets import Selector
from nexmdm.runtime.database import Executor
from nexmdm.runtime.settings import Settings
from nexmdm.runtime.validation import Instant


class _Members(Identity, forbid_unknown_fields=True, kw_only=True):
    """Some members are null for a build adopted from an old server."""

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
    rollout_filter: Filter | None
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
    warnings: list[str] | UnsetType = UNSET


B = TypeVar("B", bound=_Members)


class Build(_Members, kw_only=True):
    """A build. Some members are null for a build adopted from an old server. Lists have no `warnings`."""

    statistics: Statistics


class DeclaredBuild(_Members, kw_only=True):
    """The upload URL is null if the build is already published; a new build has no statistics yet."""

    upload_url: str | None
    upload_headers: dict[str, str] | None
    upload_expires_in: int | None
    statistics: Statistics | UnsetType = UNSET


class InstallCommands(Struct, forbid_unknown_fields=True, kw_only=True):
    """The bulk command, if one was created; if not, every device of the cohort has the build or was already asked."""

    request_id: str | None
    device_count: Count
    states: dict[DispatchState, int]
    cohort_devices: Count
    newer_devices: Count
    action: str | UnsetType | None = UNSET
    delivery: Delivery | UnsetType | None = UNSET
    answered: Answered | UnsetType | None = UNSET
    selector: Selector | UnsetType = UNSET
    created_by: str | UnsetType = UNSET
    created_at: Instant | UnsetType = UNSET


class InstallingBuild(Build, kw_only=True):
    install: InstallCommands


def listed(build: StoredBuild) -> Build:
    """A build of a list, without warnings."""
    return _shown(Build, build)


def found(db: Executor, build: StoredBuild, config: Settings) -> Build:
    """One build with its warnings."""
    return _shown(Build, build, warnings=_warnings(db, build, config))


def declared(db: Executor, build: StoredBuild, config: Settings) -> DeclaredBuild:
    """A declared build, with the URL to PUT its file to if the file is still needed."""
    url, headers = urls.upload_address(config, build.file) if build.state == "declared" else (None, None)
    return _shown(
        DeclaredBuild,
        build,
        warnings=_warnings(db, build, config),
        upload_url=url,
        upload_headers=headers,
        upload_expires_in=urls.UPLOAD_SECONDS if url else None,
    )


def installing(
    db: Executor, build: StoredBuild, config: Settings, asked: Asked, batch: Batch | None
) -> InstallingBuild:
    """A build with the result of asking devices to install it."""
    commands = structs.asdict(batch) if batch else {"request_id": None, "device_count": 0, "states": {}}
    install = InstallCommands(**commands, cohort_devices=asked.cohort_devices, newer_devices=asked.newer_devices)
    warnings = _warnings(db, build, config)
    return _shown(InstallingBuild, build, warnings=warnings, install=install)


_STORED = [name for name in _Members.__struct_fields__ if name in StoredBuild.__struct_fields__ and name != "plan"]


def _shown(type_: type[B], build: StoredBuild, **more: Any) -> B:
    """What is stored of a build, in a form that has `more` members."""
    stored = {name: getattr(build, name) for name in _STORED}
    if build.statistics is not None:
        more["statistics"] = build.statistics
    return type_(**stored, plan=plans.shown(build), **more)


def _warnings(db: Executor, build: StoredBuild, config: Settings) -> list[str]:
    return publishing.warnings(db, build, config.agent_package)
