"""The cleanup: creates future partitions, then runs every retention policy within its share of the remaining time."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

import msgspec

from nexmdm.builds import downloads, publishing
from nexmdm.heartbeats import partitions
from nexmdm.retention import archive, export, policies
from nexmdm.retention.policies import Outcome, Steps
from nexmdm.runtime import metrics
from nexmdm.runtime.database import Database, Executor
from nexmdm.runtime.settings import Settings

# The names of policies in logs and metrics.
TABLES = {
    "heartbeats": "device_heartbeats",
    "fcm_dispatches": "fcm_dispatches",
    "apk_downloads": "apk_download_events",
    "enrollment_tokens": "enrollment_tokens",
    "device_alerts": "device_alerts",
    "operator_events": "operator_events",
    "fleet_history": "fleet_history",
    "device_history": "device_history",
}


class Partitions(msgspec.Struct):
    """How many were made, how many heartbeats had found none, and what stopped it."""

    made: int
    heartbeats_without_one: int
    error: str | None


class Declarations(msgspec.Struct):
    """How many builds were declared and never completed, and what stopped removing them."""

    expired: int
    error: str | None


class Cleaned(msgspec.Struct):
    """What became of a cleanup. complete: nothing that is due is left and nothing failed."""

    complete: bool
    partitions: Partitions
    builds: Declarations
    policies: dict[str, Outcome]


def clean(db: Database, settings: Settings, remaining_seconds: Callable[[], float]) -> Cleaned:
    """Clean up as far as time allows; the next run continues. A policy that fails does not stop the others.

    Args:
        remaining_seconds: returns the remaining time.
    """
    ahead, made, stray = _partitions_ahead(db, settings)
    outcomes = {"partitions": ahead}
    declarations, expired = _builds(db)
    days = policies.retention_days(settings)
    for n, policy in enumerate(days):
        share = remaining_seconds() / (len(days) - n)
        limit = remaining_seconds() - share
        outcomes[policy] = _policy(db, settings, policy, days[policy], partial(_above, limit, remaining_seconds))
    complete = declarations.done and all(outcome.done for outcome in outcomes.values())
    _measure(outcomes, stray, complete)
    del outcomes["partitions"]
    return Cleaned(complete, Partitions(made, stray, ahead.error), Declarations(expired, declarations.error), outcomes)


def _above(limit: float, remaining_seconds: Callable[[], float]) -> bool:
    return remaining_seconds() > limit


class Due(msgspec.Struct):
    """How many rows a policy would remove."""

    due: int


class DryRun(msgspec.Struct):
    """What a cleanup would do."""

    policies: dict[str, Due]
    dry_run: bool = True


def dry_run(db: Executor, settings: Settings) -> DryRun:
    """The number of rows that `clean` would remove, per policy; changes nothing."""
    return DryRun({policy: Due(n) for policy, n in policies.due(db, settings).items()})


def _partitions_ahead(db: Executor, settings: Settings) -> tuple[Outcome, int, int]:
    made, stray = 0, 0

    def steps() -> Steps:
        nonlocal made, stray
        stray = partitions.in_default(db)
        made = partitions.ensure_partitions(db, settings)
        yield 0

    return policies.guarded(steps(), lambda: True), made, stray


def _builds(db: Database) -> tuple[Outcome, int]:
    """Expire declarations that were never completed, and remove download counters that are older than an hour."""
    expired = 0

    def steps() -> Steps:
        nonlocal expired
        expired = publishing.expire(db)
        yield downloads.forget_rates(db)

    return policies.guarded(steps(), lambda: True), expired


def _policy(
    db: Executor, settings: Settings, policy: str, days: int, may_go_on: Callable[[], bool]
) -> policies.Outcome:
    def steps(before: datetime) -> Steps:
        if policy == "heartbeats":
            return policies.heartbeats(db, before, settings.heartbeat_bucket_seconds, archive.of(db, settings))
        if policy == "fcm_dispatches":
            return policies.dispatches(db, before)
        if policy == "enrollment_tokens":
            return policies.tokens(db, before)
        if policy == "device_alerts":
            return policies.alerts(db, before)
        if policy == "fleet_history":
            return policies.fleet_history(db, before)
        if policy == "device_history":
            return policies.device_history(db, before)
        if policy == "operator_events":
            return policies.events(db, before)
        return export.downloads(db, before, settings)

    return policies.run(db, TABLES[policy], days, steps, may_go_on)


def _measure(outcomes: dict[str, Outcome], stray: int, complete: bool) -> None:
    """Write the metrics for the alarms: CleanupSucceeded, CleanupFailed, HeartbeatsWithoutPartition."""
    for policy, outcome in outcomes.items():
        if policy != "partitions":
            metrics.count("".join(word.capitalize() for word in policy.split("_")) + "Removed", outcome.deleted)
    metrics.count("HeartbeatsWithoutPartition", stray)
    metrics.count("CleanupFailed", sum(outcome.error is not None for outcome in outcomes.values()))
    metrics.count("CleanupSucceeded", int(complete))
