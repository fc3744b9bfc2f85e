"""Downloads for devices: the offered release, a build by its id, and the check for updates.

A response contains a URL, never the file; the URL is signed after the row that records it was committed.
"""

from typing import Annotated

from msgspec import Meta, Struct
from nexmdm.builds import downloads, publishing, urls
from nexmdm.builds.build import Offered
from nexmdm.builds.downloads import REDIRECT, Credential, Update
from nexmdm.runtime import database, settings, warmup
from nexmdm.runtime.errors import NoCredential
from nexmdm.runtime.http import Request, Response, Routes

routes = Routes()
handler = routes.handle

PackageName = Annotated[str, Meta(min_length=1, max_length=200)]


class DownloadQuery(Struct):
    """`token` is an enrollment token, because Android's provisioning downloads a plain URL."""

    package_name: PackageName | None = None
    installation_id: str | None = None
    token: str | None = None


class UpdateQuery(Struct):
    """`device_id` is what the agent sends; the device is identified by its token."""

    current_version_code: Annotated[int, Meta(ge=0)] = 0
    package_name: PackageName | None = None
    device_id: str | None = None


@routes("GET /v1/apk/download/latest", caller="download", statuses={302: REDIRECT}, problems=(404, 429))
@routes("GET /v1/apk/download-latest", caller="download", statuses={302: REDIRECT}, problems=(404, 429))
def latest(request: Request, query: DownloadQuery) -> Response[None]:
    """Get the download URL of the release that is offered to the caller.

    A device authenticates with its token, a factory-reset phone with an enrollment token of scope `apk_download`, which
    Android's provisioning sends in the query. The URL is valid for 300 s; it is signed after the row that records it
    was committed.
    """
    config, credential = settings.load(), _credential(request, query)
    agent, interval = config.agent_package, config.heartbeat_interval_seconds
    package_name = query.package_name or agent
    return _address(downloads.issue_latest(database.connection(), credential, package_name, agent, interval))


@routes("GET /v1/apk/download/{build_id}", caller="download", statuses={302: REDIRECT}, problems=(404, 429))
def by_id(request: Request, query: DownloadQuery) -> Response[None]:
    """Get the download URL of a published build.

    A device gets a build that it is offered or was asked to install, an enrollment token a build of the agent's
    package. A paused or rolled back build is not available. After 20 URLs within an hour a device gets 429.
    """
    credential = _credential(request, query)
    build_id, config = publishing.number(request.path["build_id"]), settings.load()
    agent, interval = config.agent_package, config.heartbeat_interval_seconds
    return _address(downloads.issue(database.connection(), credential, build_id, agent, interval))


@routes("GET /v1/agent/update", caller="device", statuses={200: (), 304: ()})
def update(request: Request, query: UpdateQuery) -> Response[Update]:
    """Check whether there is a newer build for this device."""
    config = settings.load()
    package_name, interval = query.package_name or config.agent_package, config.heartbeat_interval_seconds
    build = downloads.update_for(database.connection(), request.device_token, package_name, interval)
    if build is None or build.version_code <= query.current_version_code:
        return Response(status=304)
    url = f"{request.base_url}/v1/apk/download/{build.build_id}"
    return Response(downloads.update(build, url))


def _credential(request: Request, query: DownloadQuery) -> Credential:
    header = request.presented_token
    secret = header or query.token
    if not secret:
        raise NoCredential(
            "Send a device token as `X-Device-Token`, or an enrollment token of scope apk_download as"
            " `Authorization: Bearer` or ?token=."
        )
    installation_id = publishing.number(query.installation_id or "") or None
    return Credential(secret, from_address=not header, ip=request.source_ip, installation_id=installation_id)


def _address(build: Offered) -> Response[None]:
    url = urls.download_address(settings.load(), build.file)
    return Response(status=302, headers={"Location": url, "X-APK-SHA256": build.sha256, "Cache-Control": "no-store"})


warmup.warm_up(urls.load_signer)
