"""Builds for operators and CI: published in two steps, promoted, rolled out in stages, rolled back, looked at."""

import uuid
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, to_builtins
from nexmdm.builds import downloads, installations, plans, publishing, rollouts, signers, urls
from nexmdm.builds.installations import Installation, InstallationsQuery
from nexmdm.builds.publishing import BuildsQuery, Declaration
from nexmdm.builds.rollouts import Install
from nexmdm.commands import batches
from nexmdm.devices.filters import Filter
from nexmdm.devices.targets import TargetHash
from nexmdm.runtime import database, settings, validation, warmup
from nexmdm.runtime.database import Row
from nexmdm.runtime.errors import Invalid
from nexmdm.runtime.http import Request, Response, Routes
from nexmdm.runtime.pagination import Page

from functions.apk_builds import completion

routes = Routes()
handler = routes.handle

Percent = Annotated[int, Meta(ge=0, le=100)]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]
# A server's own request_id of a member is `request_id:device_id`.
RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,63}\Z")]


class Promotion(Struct, forbid_unknown_fields=True):
    """`filter`: offer it to these devices only. `expect_target_hash`: of a preview of this filter."""

    staged_rollout_percent: Percent = 100
    filter: Filter | None = None
    expect_target_hash: TargetHash | None = None


class Rollout(Struct, forbid_unknown_fields=True):
    """To whom the current build is offered: a percentage, or devices for a pilot, or stages that go on by themselves.

    Attributes:
        filter: offer it to these devices only; left out, the rollout's filter stays, and {"all": true} takes it away.
        expect_target_hash: of a preview of the filter, without the percentage.
        device_ids: asked to install it, beside the percentage.
    """

    staged_rollout_percent: Percent | None = None
    filter: Filter | None = None
    expect_target_hash: TargetHash | None = None
    install: bool = False
    request_id: RequestId | None = None
    device_ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=1000)] | None = None
    stages: Annotated[list[plans.Stage], Meta(min_length=1, max_length=20)] | None = None
    window: plans.Window | None = None


class Why(Struct, forbid_unknown_fields=True):
    reason: Reason = "by hand"


class DownloadQuery(Struct):
    source: Literal["manual", "ci"] = "manual"


class PinnedSigners(Struct, forbid_unknown_fields=True):
    fingerprints: Annotated[list[signers.Fingerprint], Meta(min_length=1, max_length=20)]


@routes("POST /v1/apk/builds")
def declare(request: Request) -> Response[Any]:
    """Declare a build: the first step of publishing.

    PUT the file to `upload_url` with `upload_headers`, then complete. Declaring the same build again answers 200.
    """
    declaration, config = request.json(Declaration), settings.load()
    build, new = publishing.declare(
        database.connection(),
        declaration,
        bucket=urls.bucket(config),
        max_bytes=config.apk_max_bytes,
        actor=request.actor,
    )
    url, headers = urls.upload_address(config, build) if build["state"] == "declared" else (None, None)
    answer = {
        **_shown(build),
        "upload_url": url,
        "upload_headers": headers,
        "upload_expires_in": urls.UPLOAD_SECONDS if url else None,
    }
    return Response(answer, 201 if new else 200, {"Cache-Control": "no-store"})


@routes("POST /v1/apk/builds/{build_id}/complete")
def complete(request: Request) -> dict[str, Any]:
    """Complete a build: the second step of publishing.

    Size, checksum, signatures, signer and manifest of the uploaded file are compared with what was declared. A
    refusal says what was looked at, what was expected and what was found. The first build of a package ends as
    `awaiting_signer`: an operator pins its signer by promoting it, or with PUT …/signers. Safe to repeat.
    """
    build = _build(request)
    completion.complete(database.connection(), settings.load(), build, request.actor)
    return _shown(_build(request))


@routes("GET /v1/apk/builds")
def list_builds(request: Request) -> Page[Any]:
    """List builds with their statistics, newest first."""
    page = publishing.list_builds(database.connection(), request.parameters(BuildsQuery))
    return Page([_without_keys(build) for build in page.items], page.next_cursor)


@routes("GET /v1/apk/builds/{build_id}")
def show(request: Request) -> dict[str, Any]:
    """Show a build with its statistics, warnings and audit."""
    return _shown(_build(request))


@routes("DELETE /v1/apk/builds/{build_id}")
def withdraw(request: Request) -> Response[Any]:
    """Withdraw a build that was declared and not published."""
    publishing.withdraw(database.connection(), request.path["build_id"], request.actor)
    return Response(status=204)


@routes("POST /v1/apk/builds/{build_id}/promote")
def promote(request: Request) -> dict[str, Any]:
    """Make a published build the current one of its package and build type.

    One that is `awaiting_signer` is published first: promoting it pins its signer.
    """
    audience = _audience(request.json(Promotion))
    rollouts.promote(database.connection(), _build(request), audience, request.actor)
    return _shown(_build(request))


@routes("POST /v1/apk/builds/{build_id}/rollout")
def roll_out(request: Request) -> Response[Any]:
    """Offer the current build to a percentage of the fleet or of what a filter selects, to named devices, or in stages.

    With `install` it also sends install_apk to those of the cohort who neither have the build nor were asked within a
    day, and answers 202; `device_ids` are asked so beside the percentage. `stages` make a plan that goes on by itself,
    inside its `window`; a percentage set by hand ends it.
    """
    body, build, db = request.json(Rollout), _build(request), database.connection()
    given = [name for name in ("staged_rollout_percent", "device_ids", "stages") if getattr(body, name) is not None]
    if len(given) != 1:
        path = f"$.{(given or ['staged_rollout_percent'])[0]}"
        raise Invalid(path, "give one of staged_rollout_percent, device_ids and stages")
    if body.window is not None and body.stages is None:
        raise Invalid("$.window", "is for stages")
    if body.device_ids is not None and body.filter is not None:
        raise Invalid("$.filter", "cannot stand beside device_ids: a filter says of which devices the percentage is")
    config, actor = settings.load(), request.actor
    key = _request_id(request, body.request_id)
    audience = _audience(body)
    if body.stages is not None:
        plans.begin(
            db, build, body.stages, body.window, audience, actor, config, install=body.install, url=request.base_url
        )
        return Response(_shown(_build(request)))
    if not body.install and body.device_ids is None:
        rollouts.roll_out(db, build, audience, actor)
        return Response(_shown(_build(request)))
    request_id = key or f"install-{build['build_id']}-{uuid.uuid4().hex[:12]}"
    install = Install(request_id=request_id, base_url=request.base_url, agent_package=config.agent_package)
    asked = rollouts.install(db, build, audience, actor, install, body.device_ids)
    batch = batches.show(db, request_id) if asked.made else None
    commands = to_builtins(batch) if batch else {"request_id": None, "device_count": 0, "states": {}}
    counts = {"cohort_devices": asked.cohort_devices, "newer_devices": asked.newer_devices}
    return Response({**_shown(_build(request)), "install": {**commands, **counts}}, 202)


@routes("GET /v1/apk/builds/{build_id}/installations", caller="operator")
def list_installations(request: Request, query: InstallationsQuery) -> Page[Installation]:
    """List a build's installations, newest first: which device, how it stands, and what went wrong."""
    return installations.list_installations(database.connection(), request.path["build_id"], query)


@routes("POST /v1/apk/builds/{build_id}/pause")
def pause(request: Request) -> dict[str, Any]:
    """Stop offering the current build."""
    reason = request.json(Why).reason
    rollouts.pause(database.connection(), _build(request), reason, request.actor)
    return _shown(_build(request))


@routes("POST /v1/apk/builds/{build_id}/resume")
def resume(request: Request) -> dict[str, Any]:
    """Offer a paused build again; failures are counted from here."""
    rollouts.resume(database.connection(), _build(request), request.actor)
    return _shown(_build(request))


@routes("POST /v1/apk/builds/{build_id}/rollback")
def roll_back(request: Request) -> dict[str, Any]:
    """Make what this build replaced current again."""
    reason = request.json(Why).reason
    rollouts.roll_back(database.connection(), _build(request), reason, request.actor)
    return _shown(_build(request))


@routes("GET /v1/apk/builds/{build_id}/download")
def download(request: Request) -> Response[Any]:
    """Get the address of a published build, as an operator or CI.

    Signed for 300 s, after the row that records it was committed.
    """
    build, source = _build(request), request.parameters(DownloadQuery).source
    downloads.issue_to_operator(database.connection(), build, source, request.operator, request.source_ip)
    url = urls.download_address(settings.load(), build)
    headers = {"Location": url, "X-APK-SHA256": build["sha256"], "Cache-Control": "no-store"}
    return Response({"download_url": url, "sha256": build["sha256"], "file_size": build["file_size"]}, 302, headers)


@routes("GET /v1/apk/packages/{package_name}/signers")
def list_signers(request: Request) -> dict[str, Any]:
    """List the certificates that may sign a package."""
    return {"items": signers.pinned(database.connection(), _package_name(request))}


@routes("PUT /v1/apk/packages/{package_name}/signers")
def replace_signers(request: Request) -> dict[str, Any]:
    """Make these certificates the ones that may sign a package.

    Builds that awaited a signer are published, or refused when theirs is none of these.
    """
    fingerprints = request.json(PinnedSigners).fingerprints
    items = signers.replace(database.connection(), _package_name(request), fingerprints, request.actor)
    return {"items": items}


def _audience(body: Promotion | Rollout) -> rollouts.Audience:
    return rollouts.Audience(
        percent=body.staged_rollout_percent or 0,
        filter=body.filter,
        expect_target_hash=body.expect_target_hash,
        interval_seconds=settings.load().heartbeat_interval_seconds,
    )


def _build(request: Request) -> Row:
    return publishing.find(database.connection(), request.path["build_id"])


def _package_name(request: Request) -> str:
    return validation.convert(request.path["package_name"], signers.PackageName, root="path.package_name")


def _without_keys(build: Row) -> dict[str, Any]:
    """A build without what only this server needs."""
    hidden = ("file_path", "object_version", "plan_stage", "plan_stage_at", "plan_ended_at", "plan_end")
    return {name: value for name, value in build.items() if name not in hidden} | {"plan": plans.shown(build)}


def _shown(build: Row) -> dict[str, Any]:
    """The same, with what an operator should know of it."""
    return {
        **_without_keys(build),
        "warnings": publishing.warnings(database.connection(), build, settings.load().agent_package),
    }


def _request_id(request: Request, given: str | None) -> str | None:
    header = request.headers.get("idempotency-key")
    if header is None:
        return given
    key = validation.convert(header, RequestId, root="header.Idempotency-Key")
    if given not in (None, key):
        raise Invalid("$.request_id", "differs from the Idempotency-Key header; give one of them")
    return key


warmup.warm_up()
