"""Rollouts: promoting a build to be the current one of its package and type, and offering it to a part of the fleet.

    promote     published -> current; it replaces the build that was current
    rollout     the percentage of the fleet that is offered it; the rest is offered the replaced build
    pause       it is no longer offered, by an operator or when too many installations fail; install_apk commands
                that are not sent yet wait. resume
    rollback    the replaced build is current again; install_apk commands that are not sent yet are cancelled

The build's `audit` records who did what, when, and the reason.
"""

import time
from typing import NamedTuple

import msgspec
from msgspec import Struct

from nexmdm.activity import events
from nexmdm.activity.events import Change
from nexmdm.builds import publishing, signers
from nexmdm.builds.build import Identity, StoredBuild
from nexmdm.builds.publishing import ROLLED_BACK
from nexmdm.commands import batches
from nexmdm.commands.batches import Asked, InstallTarget
from nexmdm.commands.single import Command, Selected
from nexmdm.devices import filters, groups
from nexmdm.devices.filters import Condition, Filter
from nexmdm.devices.targets import Selector
from nexmdm.runtime import logs
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms, statement
from nexmdm.runtime.errors import Conflict, TargetsChanged

INSTALL_TTL_SECONDS = 86_400


class Audience(Struct, frozen=True, kw_only=True):
    """The devices that a build is offered to: a filter and a percentage.

    Attributes:
        filter: None leaves the rollout's filter unchanged; {all: true} removes it.
        expect_target_hash: of a preview of the filter, without the percentage.
        interval_seconds: of heartbeats, for `online` in a filter.
    """

    percent: int
    filter: Filter | None = None
    expect_target_hash: str | None = None
    interval_seconds: float


def promote(db: Database, build: StoredBuild, audience: Audience, actor: Actor) -> None:
    """Make a published build current, for the audience. Repeating it changes nothing.

    A build that awaits its signer is published first: promoting it pins its signer for the package.

    Raises:
        Conflict: it is not published, or its version code is not above the current build's.
    """
    start = time.perf_counter()
    parameters = {**_name(build), "percent": audience.percent, "by": actor.name}
    pinned: Change = {}
    with db.transaction() as tx:
        signers.lock_package(tx, build.package_name)
        if tx.execute(_AWAITS_SIGNER, _name(build)):
            fingerprint = build.file.signer_fingerprint
            signers.pin(tx, build.package_name, fingerprint, actor.name)
            signers.decide(tx, build.package_name, [fingerprint], actor)
            pinned = {"pinned_signer": fingerprint}
        current = tx.execute(_CURRENT, parameters)
        if current and current[0]["id"] == build.build_id:
            return
        if current and current[0]["version_code"] >= build.version_code:
            raise Conflict(
                f"version_code: {build.version_code} is not above {current[0]['version_code']} of build"
                f" {current[0]['id']}, which is current. To return to an earlier build, roll the current one back."
            )
        tx.execute(_RETIRE, {"build_id": current[0]["id"] if current else None, "by_build": build.build_id})
        promoted = tx.execute(_PROMOTE, {**parameters, "replaces_id": current[0]["id"] if current else None})
        if not promoted:
            raise Conflict(f"The build is {build.state}; only a published one can be promoted.")
        offered = _offer(tx, build, audience, actor)
        before = {"current": current[0]["id"] if current else None}
        after = {"staged_rollout_percent": audience.percent, **_filter_shown(offered.kept), **pinned}
        _event(tx, actor, "promote", build, before, after)
    _log(build, "promote", actor.name, start)


def roll_out(db: Database, build: StoredBuild, audience: Audience, actor: Actor) -> None:
    """Offer the current build to the audience.

    Raises:
        Conflict: it is not current.
        Invalid: the filter is empty or invalid, or names an unknown group.
        TargetsChanged: the filter selects other devices than in the preview. Nothing was changed.
    """
    start = time.perf_counter()
    with db.transaction() as tx:
        _log_offer(tx, build, audience, actor, _offer(tx, build, audience, actor))
    _log(build, "rollout", actor.name, start)


class Install(Struct, frozen=True, kw_only=True):
    """How install_apk is sent: once per request_id, with a URL under `base_url`."""

    request_id: str
    base_url: str
    agent_package: str
    ttl_seconds: int = INSTALL_TTL_SECONDS


def install(
    db: Database,
    build: StoredBuild,
    audience: Audience,
    actor: Actor,
    how: Install,
    device_ids: list[str] | None = None,
) -> Asked:
    """Roll out, and send install_apk to the cohort's devices that neither have the build nor were asked; all or
    nothing.

    Args:
        device_ids: a pilot: these devices are asked instead of the cohort, and the rollout is not changed.

    Returns:
        The asked devices; `batches.show` of the request_id shows the progress. The sweep sends the commands.

    Raises:
        Conflict: it is not current, or its rollout is paused.
        Invalid, TargetsChanged: as in `roll_out`; a known request_id is answered before these checks.
        PayloadMismatch: the request_id belongs to another command.
        NotFound: one of the named devices does not exist.
    """
    start = time.perf_counter()
    command = _command(build, audience.percent, actor, how, device_ids, audience.filter)
    with db.transaction() as tx:
        if batches.replayed(tx, command):
            return _ask(tx, build, audience.percent, actor, how, command, device_ids, audience.interval_seconds)
        # Locks the build's row, which serializes concurrent calls: the second sees which devices the first asked.
        if device_ids is None:
            _log_offer(tx, build, audience, actor, _offer(tx, build, audience, actor))
        elif not tx.execute(_HOLD, _name(build)):
            raise _not_current(build)
        if tx.execute(_PAUSED, _name(build)):
            raise Conflict("The rollout is paused. Resume it first.")
        asked = _ask(tx, build, audience.percent, actor, how, command, device_ids, audience.interval_seconds)
    _log(build, "rollout", actor.name, start)
    return asked


def ask(tx: Executor, build: Identity, percent: int, actor: Actor, how: Install, interval_seconds: float) -> Asked:
    """Ask the first `percent` of the devices that the build is offered to; the caller has locked the build's row."""
    command = _command(build, percent, actor, how, None)
    return _ask(tx, build, percent, actor, how, command, None, interval_seconds)


def _command(
    build: Identity,
    percent: int,
    actor: Actor,
    how: Install,
    device_ids: list[str] | None,
    given: Filter | None = None,
) -> Command[Selected]:
    parameters = {
        "package_name": build.package_name,
        "version_name": build.version_name,
        "version_code": build.version_code,
        "file_size": build.file_size,
        "apk_id": build.build_id,
    }
    selector: Selector = {"apk_build": build.build_id}
    if device_ids is None:
        selector["staged_rollout_percent"] = percent
    else:
        selector["device_ids"] = sorted(device_ids)
    if given is not None:
        selector["filter"] = filters.conditions(filters.checked(given))
    return Command(how.request_id, Selected(selector), "install_apk", parameters, how.ttl_seconds, actor)


def _ask(
    tx: Executor,
    build: Identity,
    percent: int,
    actor: Actor,
    how: Install,
    command: Command[Selected],
    device_ids: list[str] | None,
    interval_seconds: float,
) -> Asked:
    [held] = tx.execute(_FILTER, _name(build))
    parts = filters.of_stored(tx, held["rollout_filter"]) if held["rollout_filter"] else []
    target = InstallTarget(build.build_id, percent, filters.where(parts, interval_seconds), device_ids)
    url = f"{how.base_url}/v1/apk/download/{build.build_id}"
    known = batches.replayed(tx, command)
    asked = batches.accept_installations(tx, command, target, url, how.agent_package)
    if asked.made and not known:
        _event(tx, actor, "install", build, None, {"request_id": how.request_id, "devices": asked.devices})
    return asked


def pause(db: Database, build: StoredBuild, reason: str, actor: Actor) -> None:
    """Stop offering the current build. Repeating it changes nothing.

    Raises:
        Conflict: it is not current.
    """
    start = time.perf_counter()
    with db.transaction() as tx:
        rows = tx.execute(_PAUSE, {**_name(build), "reason": reason, "by": actor.name})
        if rows:
            _event(tx, actor, "pause", build, None, {"reason": reason, **_plan(build, "waits")})
    _settled(db, build, rows, "pause", actor, start)


def resume(db: Database, build: StoredBuild, actor: Actor) -> None:
    """Offer the current build again; failures are counted from now on. Repeating it changes nothing.

    Raises:
        Conflict: it is not current.
    """
    start = time.perf_counter()
    with db.transaction() as tx:
        rows = tx.execute(_RESUME, {**_name(build), "by": actor.name})
        if rows:
            after = _plan(build, "goes on") or None
            _event(tx, actor, "resume", build, {"paused_reason": build.paused_reason}, after)
    _settled(db, build, rows, "resume", actor, start)


def roll_back(db: Database, build: StoredBuild, reason: str, actor: Actor) -> None:
    """Make the build current again that the current one replaced. Repeating it changes nothing.

    Raises:
        Conflict: it is not current, or it replaced nothing.
    """
    start = time.perf_counter()
    with db.transaction() as tx:
        signers.lock_package(tx, build.package_name)
        row = publishing.find(tx, str(build.build_id))
        if row.paused_reason == ROLLED_BACK and not row.is_current:
            return
        if not row.is_current:
            raise _not_current(build)
        if row.replaces_id is None:
            raise Conflict("There is no build before this one. Pause it instead.")
        by = {"by": actor.name}
        tx.execute(_WITHDRAW_CURRENT, {**_name(build), "rolled_back": ROLLED_BACK, "reason": reason, **by})
        tx.execute(_RESTORE, {"build_id": row.replaces_id, "instead_of": build.build_id, **by})
        cancelled = batches.cancel_installs(tx, build.build_id, actor)
        after: Change = {"current": row.replaces_id, "reason": reason, **_plan(build, "ended")}
        if cancelled:
            after["cancelled_commands"] = cancelled
        _event(tx, actor, "rollback", build, {"current": build.build_id}, after)
    _log(build, "rollback", actor.name, start)


def _plan(build: StoredBuild, what: str) -> dict[str, str]:
    """The audit entry for ending the build's plan, if one is active."""
    return {"plan": what} if build.plan is not None and build.plan_ended_at is None else {}


def refilter(tx: Executor, build: Identity, audience: Audience, actor: Actor) -> None:
    """Set the filter of the current build in the caller's transaction."""
    _log_offer(tx, build, audience, actor, _offer(tx, build, audience, actor))


class _Offered(NamedTuple):
    """The result of `_offer`. kept: the stored filter. row: the row of roll_out.sql."""

    kept: filters.Document | None
    condition: Condition
    row: Row


def _offer(tx: Executor, build: Identity, audience: Audience, actor: Actor) -> _Offered:
    """Set percentage and filter of the current build; the same statement compares the audience's hash."""
    held = tx.execute(_HOLD, _name(build))
    if not held:
        raise _not_current(build)
    kept = held[0]["rollout_filter"] if audience.filter is None else filters.stored(audience.filter)
    if kept == {"all": True}:
        kept = None
    groups.hold(tx, kept)
    parts = filters.of_stored(tx, kept) if kept else []
    condition = filters.where(parts, audience.interval_seconds)
    parameters = {
        **condition.parameters,
        "build_id": build.build_id,
        "percent": audience.percent,
        "filter": None if kept is None else msgspec.json.encode(kept).decode(),
        "expect_target_hash": audience.expect_target_hash,
        "by": actor.name,
    }
    [row] = tx.execute(_ROLL_OUT.replace("{where}", condition.sql), parameters)
    if not row["agreed"]:
        raise TargetsChanged(row["device_count"], row["target_hash"])
    return _Offered(kept, condition, row)


def _log_offer(tx: Executor, build: Identity, audience: Audience, actor: Actor, offered: _Offered) -> None:
    if offered.row["changed"]:
        before = {"staged_rollout_percent": offered.row["was"], **_filter_shown(offered.row["filter_was"])}
        after = {"staged_rollout_percent": audience.percent, **_filter_shown(offered.kept)}
        if offered.row["planned"]:
            after["plan"] = "ended"
        _event(tx, actor, "rollout", build, before, after)


def _filter_shown(kept: filters.Document | None) -> Change:
    return {} if kept is None else {"filter": filters.shown(kept)}


def _event(tx: Executor, actor: Actor, what: str, build: Identity, before: Change | None, after: Change | None) -> None:
    events.record(tx, actor, f"build.{what}", f"build:{build.build_id}", before=before, after=after)


def _name(build: Identity) -> dict[str, object]:
    return {name: getattr(build, name) for name in ("build_id", "package_name", "build_type")}


def _settled(db: Executor, build: Identity, rows: list[Row], event: str, actor: Actor, start: float) -> None:
    if rows:
        _log(build, event, actor.name, start)
    elif not publishing.find(db, str(build.build_id)).is_current:
        raise _not_current(build)


def _not_current(build: Identity) -> Conflict:
    return Conflict(f"Build {build.build_id} is not current. Promote it first.")


def _log(build: Identity, event: str, by: str, start: float) -> None:
    keys = {"build_id": build.build_id, "rollout": event, "by": by}
    logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))


def _audit(event: str, **members: str) -> str:
    """An SQL expression for the audit with a new entry; members are SQL expressions."""
    pairs = "".join(f", '{name}', {value}" for name, value in members.items())
    return f"audit || jsonb_build_object('event', '{event}', 'by', %(by)s, 'at', clock_timestamp(){pairs})"


_CURRENT = """
SELECT id, version_code FROM apk_versions
WHERE package_name = %(package_name)s AND build_type = %(build_type)s AND is_current
"""

_AWAITS_SIGNER = "SELECT id FROM apk_versions WHERE id = %(build_id)s AND state = 'awaiting_signer'"

_RETIRE = """
UPDATE apk_versions SET is_current = false,
    plan_ended_at = CASE WHEN plan IS NOT NULL THEN coalesce(plan_ended_at, clock_timestamp()) END,
    plan_end = CASE WHEN plan IS NOT NULL THEN coalesce(plan_end, 'build ' || %(by_build)s || ' took its place') END
WHERE id = %(build_id)s
"""

_PROMOTE = f"""
UPDATE apk_versions SET is_current = true, replaces_id = %(replaces_id)s, staged_rollout_percent = %(percent)s,
    rollout_filter = NULL, plan = NULL, plan_stage = NULL, plan_stage_at = NULL, plan_ended_at = NULL, plan_end = NULL,
    promoted_at = clock_timestamp(), promoted_by = %(by)s, paused_at = NULL, paused_reason = NULL,
    rollout_completed = 0, rollout_failed = 0,
    audit = {_audit("promote", percent="%(percent)s::integer", replaces="%(replaces_id)s::integer")}
WHERE id = %(build_id)s AND state = 'published'
RETURNING id
"""

_HOLD = "SELECT rollout_filter FROM apk_versions WHERE id = %(build_id)s AND is_current FOR UPDATE"

_FILTER = "SELECT rollout_filter FROM apk_versions WHERE id = %(build_id)s"

_ROLL_OUT = statement(__package__, "roll_out")

_PAUSED = "SELECT id FROM apk_versions WHERE id = %(build_id)s AND paused_at IS NOT NULL"

_PAUSE = f"""
UPDATE apk_versions SET paused_at = clock_timestamp(), paused_reason = %(reason)s,
    audit = {_audit("pause", reason="%(reason)s::text")}
WHERE id = %(build_id)s AND is_current AND paused_at IS NULL
RETURNING id
"""

_RESUME = f"""
UPDATE apk_versions SET paused_at = NULL, paused_reason = NULL, rollout_completed = 0, rollout_failed = 0,
    audit = {_audit("resume")}
WHERE id = %(build_id)s AND is_current AND paused_at IS NOT NULL
RETURNING id
"""

# Commands may still refer to the build, so it is also paused and can no longer be downloaded.
_WITHDRAW_CURRENT = f"""
UPDATE apk_versions SET is_current = false, paused_at = clock_timestamp(), paused_reason = %(rolled_back)s,
    plan_ended_at = CASE WHEN plan IS NOT NULL THEN coalesce(plan_ended_at, clock_timestamp()) END,
    plan_end = CASE WHEN plan IS NOT NULL THEN coalesce(plan_end, %(rolled_back)s) END,
    audit = {_audit("rollback", reason="%(reason)s::text")}
WHERE id = %(build_id)s
"""

_RESTORE = f"""
UPDATE apk_versions SET is_current = true, audit = {_audit("restore", instead_of="%(instead_of)s::integer")}
WHERE id = %(build_id)s
"""
