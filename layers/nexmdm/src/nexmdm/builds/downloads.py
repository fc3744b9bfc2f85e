"""Downloads of builds: authorization, choice of the build and the record of it, in one statement that commits itself.

A URL is signed only after that statement has returned, so there is no URL without a row. There may be a row without a
URL, after a crash between the two, or if the statement was repeated because its response was lost.
"""

import time
from typing import Literal

from msgspec import Struct

from nexmdm.builds.build import Offered, Percent, Sha256, StoredBuild, offered
from nexmdm.devices.registry import authenticated, token_id
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.database import Executor, Row, elapsed_ms, statement
from nexmdm.runtime.errors import (
    Conflict,
    DeviceDeleted,
    Invalid,
    NoSuchBuild,
    NotAuthenticated,
    NotFound,
    TooManyDownloads,
)

Source = Literal["enrollment", "manual", "ci"]
REDIRECT = ("Location", "X-APK-SHA256", "Cache-Control")  # headers of every response with a download URL


class DownloadAddress(Struct, forbid_unknown_fields=True):
    """Expires after 300 s; supports range requests."""

    download_url: str
    sha256: Sha256
    file_size: int


class Update(Struct, forbid_unknown_fields=True, kw_only=True):
    """A newer build that is offered to the device."""

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


# Per device, build and hour. A phone that resumes an interrupted download needs a few, but a stolen device token must
# not allow unlimited downloads.
MOST_ADDRESSES, ADDRESSES_SECONDS = 20, 3600


def issue_latest(
    db: Executor, credential: "Credential", package_name: str, agent_package: str, interval_seconds: float
) -> Offered:
    """Record a download of the release build that is offered to the caller's cohort, and return the build.

    Args:
        agent_package: the only package that an enrollment token can download.

    Raises:
        NotAuthenticated, DeviceDeleted: the token is unknown or belongs to a deleted device.
        NoSuchBuild: no build is offered.
        TooManyDownloads: the device got too many URLs of it within the hour.
    """
    rows = _issue(db, credential, package_name, None, agent_package, interval_seconds)
    return _issued(rows, f"No release of {package_name} is offered to this caller at present.")


def issue(
    db: Executor, credential: "Credential", build_id: int, agent_package: str, interval_seconds: float
) -> Offered:
    """Record a download of a given build, and return the build.

    A device gets a build that it is offered or was asked to install, an enrollment token a build of the agent's
    package; a paused or rolled back build cannot be downloaded.

    Raises:
        NotAuthenticated, DeviceDeleted: the token is unknown or belongs to a deleted device.
        NoSuchBuild: there is no such build for the caller.
        TooManyDownloads: the device got too many URLs of it within the hour.
    """
    rows = _issue(db, credential, None, build_id, agent_package, interval_seconds)
    return _issued(
        rows,
        f"There is no build {build_id} for this caller: it is unknown, not published, paused or rolled back, or the"
        " caller was neither offered it nor asked to install it.",
    )


class Credential:
    """The credential of a device or a factory-reset phone; only an enrollment token may be part of a URL.

    Attributes:
        installation_id: the installation that the download is for, if the caller names one.
    """

    def __init__(
        self, secret: str, *, from_address: bool, ip: str | None = None, installation_id: int | None = None
    ) -> None:
        hashed = token_id(secret)
        self.parameters = {
            "token_id": None if from_address else hashed,
            "token_hash": hashed,
            "ip": ip,
            "installation_id": installation_id,
        }


def issue_to_operator(db: Executor, build: StoredBuild, source: Source, by: str, ip: str | None) -> None:
    """Record that an operator or CI gets a download URL of a build.

    Raises:
        Conflict: it is not published.
    """
    if build.state != "published":
        raise Conflict(f"The build is {build.state}; only a published one can be downloaded.")
    record(db, build_id=build.build_id, source=source, admin_user=by, ip=ip)


def record(
    db: Executor,
    *,
    build_id: int,
    source: Source,
    token_id: str | None = None,
    admin_user: str | None = None,
    ip: str | None = None,
) -> int:
    """Record a download; return the event's id.

    Raises:
        Invalid: not exactly one of token_id and admin_user is given, or the source is unknown.
        NoSuchBuild: there is no such build.
        NotFound: there is no such enrollment token.
    """
    start = time.perf_counter()
    if (token_id is None) == (admin_user is None):
        raise Invalid("token_id", "give exactly one of token_id and admin_user")
    if source not in ("enrollment", "manual", "ci"):
        raise Invalid("source", f"is {source!r}; it must be enrollment, manual or ci")
    parameters = {"build_id": build_id, "source": source, "token_id": token_id, "admin_user": admin_user, "ip": ip}
    [row] = db.execute(_RECORD, parameters)
    if not row["known"]:
        raise NoSuchBuild(f"There is no build {build_id}.")
    if row["event_id"] is None:
        raise NotFound(f"There is no enrollment token {token_id!r}.")
    _count(row["event_id"], build_id, source, start)
    return int(row["event_id"])


def forget_rates(db: Executor) -> int:
    """Remove rows for counting downloads that are older than an hour; return how many."""
    return len(db.execute(_FORGET_RATES, {"seconds": ADDRESSES_SECONDS}, repeatable=True))


def update_for(db: Executor, token: str, package_name: str, interval_seconds: float) -> Offered | None:
    """The release build offered to the device's cohort, regardless of its version; None if there is none. Records
    nothing.

    Raises:
        NotAuthenticated, DeviceDeleted: the token is unknown or belongs to a deleted device.
    """
    parameters = {
        "token_id": token_id(token),
        "package_name": package_name,
        "interval_seconds": interval_seconds,
    }
    row = authenticated(db.execute(_UPDATE, parameters, repeatable=True))
    return offered(row) if row["build_id"] is not None else None


def update(build: Offered, url: str) -> Update:
    """The response to a device that asks for updates; `url` is where it downloads the build."""
    same = {name: getattr(build, name) for name in Update.__struct_fields__ if name in Offered.__struct_fields__}
    return Update(**same, download_url=url, release_notes=build.notes)


def _issue(
    db: Executor,
    credential: Credential,
    package_name: str | None,
    build_id: int | None,
    agent_package: str,
    interval_seconds: float,
) -> list[Row]:
    start = time.perf_counter()
    parameters = {
        "package_name": package_name,
        "build_id": build_id,
        "agent_package": agent_package,
        "interval_seconds": interval_seconds,
        "most": MOST_ADDRESSES,
        "seconds": ADDRESSES_SECONDS,
        **credential.parameters,
    }
    # Repeated after a lost response, it leaves one row more than URLs, which is the safe direction.
    rows = db.execute(_ISSUE, parameters, repeatable=True)
    for row in rows:
        if row["event_id"] is not None:
            _count(row["event_id"], row["build_id"], "enrollment", start)
    return rows


def _issued(rows: list[Row], none: str) -> Offered:
    if not rows:
        raise NotAuthenticated("The token is not valid for downloads.")
    if rows[0]["deleted"]:
        raise DeviceDeleted
    if rows[0]["event_id"] is None and rows[0]["retry_after"] is not None:
        metrics.count("DownloadRefused")
        raise TooManyDownloads(MOST_ADDRESSES, rows[0]["build_id"], rows[0]["retry_after"])
    if rows[0]["event_id"] is None:
        raise NoSuchBuild(none)
    return offered(rows[0])


def _count(event_id: int, build_id: int, source: str, start: float) -> None:
    metrics.count("DownloadIssued")
    keys = {"id": event_id, "build_id": build_id, "source": source}
    logs.db_operation("create", "apk_download_events", keys, elapsed_ms(start))


_ISSUE = statement(__package__, "issue")

_UPDATE = statement(__package__, "offered_build")

_FORGET_RATES = """
DELETE FROM apk_download_rates WHERE last_at < clock_timestamp() - make_interval(secs => %(seconds)s) RETURNING 1
"""

_RECORD = """
WITH event AS (
    INSERT INTO apk_download_events (build_id, source, token_id, admin_user, ip, ts)
    SELECT id, %(source)s, %(token_id)s, %(admin_user)s, %(ip)s, clock_timestamp()
    FROM apk_versions WHERE id = %(build_id)s
      AND (%(token_id)s IS NULL OR EXISTS (SELECT FROM enrollment_tokens WHERE token_id = %(token_id)s))
    RETURNING id, build_id
), counted AS (
    UPDATE apk_versions v SET downloads_issued = v.downloads_issued + 1 FROM event WHERE v.id = event.build_id
)
SELECT (SELECT id FROM event) AS event_id, EXISTS (SELECT FROM apk_versions WHERE id = %(build_id)s) AS known
"""
