"""Build routes for operators and CI: publishing in two steps, promotion, rollouts, rollback, downloads, signers."""

import uuid
from typing import Annotated, Literal

from msgspec import Meta, Struct
from nexmdm.builds import downloads, installations, plans, publishing, rollouts, shown, signers, urls
from nexmdm.builds.build import StoredBuild
from nexmdm.builds.downloads import REDIRECT, DownloadAddress
from nexmdm.builds.installations import Installation, InstallationsQuery
from nexmdm.builds.publishing import BuildsQuery, Declaration
from nexmdm.builds.rollouts import Install
from nexmdm.builds.shown import Build, DeclaredBuild, InstallingBuild
from nexmdm.builds.signers import Signers
from nexmdm.commands import batches
from nexmdm.commands.single import RequestId
from nexmdm.devices.filters import Filter
from nexmdm.devices.targets import TargetHash
from nexmdm.runtime import database, settings, validation, warmup
from nexmdm.runtime.errors import Invalid
from nexmdm.runtime.http import NOT_STORED, Request, Response, Routes
from nexmdm.runtime.pagination import Page

from functions.apk_builds import completion

routes = Routes()
handler = routes.handle

Percent = Annotated[int, Meta(ge=0, le=100)]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]


class Promotion(Struct, forbid_unknown_fields=True):
    """`filter`: offer it only to these devices. `expect_target_hash`: of a preview of this filter."""

    staged_rollout_percent: Percent = 100
    filter: Filter | None = None
    expect_target_hash: TargetHash | None = None


class Rollout(Struct, forbid_unknown_fields=True):
    """The rollout of the current build: a percentage, devices for a pilot, or stages that advance automatically.

    Attributes:
        filter: offer it only to these devices; if absent, the rollout's filter stays, and {"all": true} removes it.
        expect_target_hash: of a preview of the filter, without the percentage.
        device_ids: asked to install it, in addition to the percentage.
    """

    staged_rollout_percent: Percent | None = None
    filter: Filter | None = None
    expect_target_hash: TargetHash | None = None
    install: bool = False
    request_id: RequestId | None = None
    device_ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=1000)] | None = None
    stages: Annotated[list[plans.Stage], Meta(min_length=1, max_length=20)] | None = None
    window: plans.Window | None = None

    def check(self) -> None:
        """Check constraints that a schema cannot express.

        Raises:
            Invalid: members are missing or conflict.
        """
        members = ("staged_rollout_percent", "device_ids", "stages")
        given = [name for name in members if getattr(self, name) is not None]
        if len(given) != 1:
            path = f"$.{(given or ['staged_rollout_percent'])[0]}"
            raise Invalid(path, "give one of staged_rollout_percent, device_ids and stages")
        if self.window is not None and self.stages is None:
            raise Invalid("$.window", "is only allowed with stages")
        if self.device_ids is not None and self.filter is not None:
            raise Invalid(
                "$.filter",
                "cannot be combined with device_ids: a filter selects the devices that a percentage refers to",
            )


class Why(Struct, forbid_unknown_fields=True):
    reason: Reason = "by hand"


class DownloadQuery(Struct):
    source: Literal["manual", "ci"] = "manual"


class PinnedSigners(Struct, forbid_unknown_fields=True):
    fingerprints: Annotated[list[signers.Fingerprint], Meta(min_length=1, max_length=20)]


@routes("POST /v1/apk/builds", statuses={201: NOT_STORED, 200: NOT_STORED}, problems=(409,))
def declare(request: Request, body: Declaration) -> Response[DeclaredBuild]:
    """Declare a build: the first step of publishing.

    PUT the file to `upload_url` with `upload_headers`, then complete. Declaring the same build again returns 200.
    """
    db, config = database.connection(), settings.load()
    bucket, most = urls.bucket(config), config.apk_max_bytes
    build, new = publishing.declare(db, body, bucket=bucket, max_bytes=most, actor=request.actor)
    answer = shown.declared(db, build, config)
    return Response(answer, 201 if new else 200, {"Cache-Control": "no-store"})


@routes("POST /v1/apk/builds/{build_id}/complete", problems=(409,))
def complete(request: Request) -> Build:
    """Complete a build: the second step of publishing.

    Size, checksum, signatures, signer and manifest of the uploaded file are compared with the declaration. A refusal
    says what was checked, expected and found. The first build of a package becomes `awaiting_signer`: an operator pins
    its signer by promoting it, or with PUT …/signers. Safe to repeat.
    """
    build = _build(request)
    completion.complete(database.connection(), settings.load(), build, request.actor)
    return _shown(request)


@routes("GET /v1/apk/builds")
def list_builds(request: Request, query: BuildsQuery) -> Page[Build]:
    """List builds with their statistics, newest first."""
    page = publishing.list_builds(database.connection(), query)
    return Page([shown.listed(build) for build in page.items], page.next_cursor)


@routes("GET /v1/apk/builds/{build_id}")
def show(request: Request) -> Build:
    """Show a build with its statistics, warnings and audit."""
    return _shown(request)


@routes("DELETE /v1/apk/builds/{build_id}", status=204, problems=(409,))
def withdraw(request: Request) -> None:
    """Withdraw a declared build that was not published."""
    publishing.withdraw(database.connection(), request.path["build_id"], request.actor)


@routes("POST /v1/apk/builds/{build_id}/promote", problems=(409,))
def promote(request: Request, body: Promotion) -> Build:
    """Make a published build the current one of its package and build type.

    A build in `awaiting_signer` is published first: promoting it pins its signer.
    """
    rollouts.promote(database.connection(), _build(request), _audience(body), request.actor)
    return _shown(request)


@routes("POST /v1/apk/builds/{build_id}/rollout", statuses={200: (), 202: ()}, problems=(409,), key=RequestId)
def roll_out(
    request: Request, body: Rollout
) -> Annotated[Response[Build], 200] | Annotated[Response[InstallingBuild], 202]:
    """Offer the current build to a percentage of the fleet or of a filter's devices, to named devices, or in stages.

    With `install`, install_apk is also sent to the cohort's devices that neither have the build nor were asked within a
    day, and the response is 202. `device_ids` are asked in addition to the percentage. `stages` create a plan that
    advances automatically, within its `window`; setting a percentage by hand ends it.
    """
    build, db, config, actor = _build(request), database.connection(), settings.load(), request.actor
    body.check()
    key = request.idempotency_key(RequestId, body.request_id)
    audience = _audience(body)
    if body.stages is not None:
        plans.begin(
            db, build, body.stages, body.window, audience, actor, config, install=body.install, url=request.base_url
        )
        return Response(_shown(request))
    if not body.install and body.device_ids is None:
        rollouts.roll_out(db, build, audience, actor)
        return Response(_shown(request))
    request_id = key or f"install-{build.build_id}-{uuid.uuid4().hex[:12]}"
    install = Install(request_id=request_id, base_url=request.base_url, agent_package=config.agent_package)
    asked = rollouts.install(db, build, audience, actor, install, body.device_ids)
    batch = batches.show(db, request_id) if asked.made else None
    return Response(shown.installing(db, _counted(request), config, asked, batch), 202)


@routes("GET /v1/apk/builds/{build_id}/installations", caller="operator")
def list_installations(request: Request, query: InstallationsQuery) -> Page[Installation]:
    """List a build's installations, newest first, with device, status and error."""
    return installations.list_installations(database.connection(), request.path["build_id"], query)


@routes("POST /v1/apk/builds/{build_id}/pause", problems=(409,))
def pause(request: Request, body: Why) -> Build:
    """Stop offering the current build."""
    rollouts.pause(database.connection(), _build(request), body.reason, request.actor)
    return _shown(request)


@routes("POST /v1/apk/builds/{build_id}/resume", problems=(409,))
def resume(request: Request) -> Build:
    """Offer a paused build again; failures are counted from now on."""
    rollouts.resume(database.connection(), _build(request), request.actor)
    return _shown(request)


@routes("POST /v1/apk/builds/{build_id}/rollback", problems=(409,))
def roll_back(request: Request, body: Why) -> Build:
    """Make the build current again that this build replaced."""
    rollouts.roll_back(database.connection(), _build(request), body.reason, request.actor)
    return _shown(request)


@routes("GET /v1/apk/builds/{build_id}/download", statuses={302: REDIRECT}, problems=(409,))
def download(request: Request, query: DownloadQuery) -> Response[DownloadAddress]:
    """Get the download URL of a published build, as an operator or CI.

    The URL is valid for 300 s; it is signed after the row that records it was committed.
    """
    build = _build(request)
    downloads.issue_to_operator(database.connection(), build, query.source, request.operator, request.source_ip)
    file = build.file
    url = urls.download_address(settings.load(), file)
    headers = {"Location": url, "X-APK-SHA256": file.sha256, "Cache-Control": "no-store"}
    return Response(DownloadAddress(url, file.sha256, file.size), 302, headers)


@routes("GET /v1/apk/packages/{package_name}/signers")
def list_signers(request: Request) -> Signers:
    """List the certificates that may sign a package."""
    return Signers(signers.pinned(database.connection(), _package_name(request)))


@routes("PUT /v1/apk/packages/{package_name}/signers")
def replace_signers(request: Request, body: PinnedSigners) -> Signers:
    """Replace the certificates that may sign a package.

    Builds that awaited a signer are published, or refused if their signer is not among these.
    """
    package_name = _package_name(request)
    return Signers(signers.replace(database.connection(), package_name, body.fingerprints, request.actor))


def _audience(body: Promotion | Rollout) -> rollouts.Audience:
    return rollouts.Audience(
        percent=body.staged_rollout_percent or 0,
        filter=body.filter,
        expect_target_hash=body.expect_target_hash,
        interval_seconds=settings.load().heartbeat_interval_seconds,
    )


def _build(request: Request) -> StoredBuild:
    return publishing.find(database.connection(), request.path["build_id"])


def _counted(request: Request) -> StoredBuild:
    return publishing.find(database.connection(), request.path["build_id"], counted=True)


def _shown(request: Request) -> Build:
    """The current state of the build."""
    return shown.found(database.connection(), _counted(request), settings.load())


def _package_name(request: Request) -> str:
    return validation.convert(request.path["package_name"], signers.PackageName, root="path.package_name")


warmup.warm_up()
