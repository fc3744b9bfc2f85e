"""Installations: devices' reports, the resulting status, and statistics.

The existing agent reports `completed` too early, with any call between the command and the end of the download. A
report is therefore only a claim, and the version that the device reports in its heartbeats decides.
"""

import enum
import time
from typing import Literal

from msgspec import Struct

from nexmdm.builds import publishing
from nexmdm.devices.registry import authenticated, token_id
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, elapsed_ms, statement, typed
from nexmdm.runtime.errors import Invalid, NotFound
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.settings import Settings
from nexmdm.runtime.validation import Instant

SETTLED_AT_ONCE = 5_000


class InstallationStatus(enum.StrEnum):
    """States of an installation."""

    # Entered when a command asks for the installation; left by the first report, by the download, or by the sweep.
    PENDING = "pending"
    # Entered by a report, or when the device downloads the build.
    DOWNLOADING = "downloading"
    # Entered by a report; after this, a claim of `completed` is accepted for packages that no heartbeat reports.
    INSTALLING = "installing"
    # Entered by a report or by the sweep when the device runs the version; final.
    COMPLETED = "completed"
    # Entered by a report; final.
    FAILED = "failed"
    # Entered by the sweep INSTALLATION_TIMEOUT_SECONDS after the last report, or when the device is asked again; left
    # by a later report, or when the version is reported within 30 days.
    UNKNOWN = "unknown"


class Progress(Struct):
    """One report. `percent` is the progress of the download, if known."""

    installation_id: int
    status: Literal["downloading", "installing", "completed", "failed"]
    percent: int | None = None
    error: str | None = None


class Installation(Struct, kw_only=True):
    """An installation of a build on a device.

    Attributes:
        claimed_at: when the device last reported `completed`, which may be wrong; see `status`.
        ended_at: when it completed or failed.
        request_id: the command that asked for it.
    """

    installation_id: int
    device_id: str
    alias: str
    status: InstallationStatus
    error: str | None
    download_progress: int | None
    initiated_at: Instant
    initiated_by: str | None
    installing_at: Instant | None
    claimed_at: Instant | None
    ended_at: Instant | None
    request_id: str | None


class InstallationsQuery(PageQuery, kw_only=True):
    """`status` filters by state."""

    status: InstallationStatus | None = None


def report(db: Executor, token: str, progress: Progress, config: Settings, request_id: str | None = None) -> str:
    """Record a device's report on one of its installations; return the resulting status. Safe to repeat.

    Raises:
        NotFound: the device has no such installation.
    """
    start = time.perf_counter()
    parameters = {
        "token_id": token_id(token),
        "installation_id": progress.installation_id,
        "status": progress.status,
        "percent": None if progress.percent is None else min(max(progress.percent, 0), 100),
        "error": progress.error and progress.error[:1000],
        "least": config.rollout_pause_installations,
        "most_failed": config.rollout_pause_failed_percent,
        "agent_package": config.agent_package,
        "request_id": request_id,
    }
    row = authenticated(db.execute(statement(__package__, "report"), parameters, repeatable=True))
    if row["status"] is None:
        raise NotFound(f"There is no installation {progress.installation_id} of this device.")
    keys = {"id": progress.installation_id, "device_id": row["device_id"], "status": row["status"]}
    logs.db_operation("update" if row["moved"] else "idempotency_hit", "apk_installations", keys, elapsed_ms(start))
    if row["paused"]:
        metrics.count("RolloutPaused")
        keys = {"build_id": row["paused"], "rollout": "pause", "by": "failed installations"}
        logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))
    status: str = row["status"]
    return status


def settle(db: Executor, config: Settings, actor: Actor) -> int:
    """End open installations that the reported version completes or that have timed out; return how many."""
    start = time.perf_counter()
    parameters = {
        "agent_package": config.agent_package,
        "timeout": config.installation_timeout_seconds,
        "limit": SETTLED_AT_ONCE,
        **actor.parameters(),
    }
    ended = 0
    for row in db.execute(statement(__package__, "settle_installations"), parameters, repeatable=True):
        ended += row["completed"] + row["unknown"]
        keys = {name: row[name] for name in ("build_id", "completed", "unknown")}
        logs.db_operation("update", "apk_installations", keys, elapsed_ms(start))
    return ended


def list_installations(db: Executor, build_id: str, query: InstallationsQuery) -> Page[Installation]:
    """A page of a build's installations, newest first.

    Raises:
        NoSuchBuild: there is no such build.
    """
    build = publishing.find(db, build_id)
    (before,) = query.after(int)
    if before is not None and not 0 < before < 2**31:
        raise Invalid("query.cursor", "is not a cursor of this list; take next_cursor of the page before")
    parameters = {
        "build_id": build.build_id,
        "status": query.status,
        "before": before,
        "limit": query.limit + 1,
    }
    rows = db.execute(statement(__package__, "list_installations"), parameters, repeatable=True)
    found = page(rows, query.limit, ("installation_id",))
    return Page(typed(found.items, Installation), found.next_cursor)
