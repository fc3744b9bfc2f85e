"""The certificates that may sign a package. Only an operator pins them, here or by promoting a build.

The pins apply to every build of the package, including debug builds: Android rejects an update by another signer.
"""

import time
from typing import Annotated

from msgspec import Meta, Struct

from nexmdm.activity import events
from nexmdm.runtime import logs
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, elapsed_ms, statement, typed
from nexmdm.runtime.errors import BuildRefused
from nexmdm.runtime.validation import Instant

PackageName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+\Z", max_length=200)]
# The SHA-256 of a certificate as printed by apksigner (hex) or keytool (with colons).
Fingerprint = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}\Z")]


class Signer(Struct, forbid_unknown_fields=True, kw_only=True):
    """A certificate that may sign a package, identified by its SHA-256."""

    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    pinned_at: Instant
    pinned_by: str


class Signers(Struct, forbid_unknown_fields=True):
    items: list[Signer]


def plain(fingerprint: str) -> str:
    """The stored form: lower case, without colons."""
    return fingerprint.replace(":", "").lower()


def check(fingerprint: str, pinned: list[str]) -> None:
    """Check a signer against the pinned ones; a package without pins accepts any.

    Raises:
        BuildRefused: the package has pinned signers, and this is not one of them.
    """
    if pinned and fingerprint not in pinned:
        raise BuildRefused("signer", f"one of the package's pinned signers {', '.join(pinned)}", fingerprint)


def pinned(db: Executor, package_name: str) -> list[Signer]:
    return typed(db.execute(_PINNED, {"package_name": package_name}, repeatable=True), Signer)


def pin(tx: Executor, package_name: str, fingerprint: str, by: str) -> None:
    tx.execute(_PIN, {"package_name": package_name, "fingerprint": fingerprint, "by": by})


def replace(db: Database, package_name: str, fingerprints: list[str], actor: Actor) -> list[Signer]:
    """Replace the package's pinned signers; those that stay keep their date. Return all of them.

    Builds that awaited a signer are published, or refused if their signer is not among these.
    """
    start = time.perf_counter()
    wanted = sorted({plain(fingerprint) for fingerprint in fingerprints})
    with db.transaction() as tx:
        lock_package(tx, package_name)
        before = [signer.fingerprint for signer in pinned(tx, package_name)]
        tx.execute(_UNPIN, {"package_name": package_name, "wanted": wanted})
        for fingerprint in wanted:
            pin(tx, package_name, fingerprint, actor.name)
        decided = decide(tx, package_name, wanted, actor)
        if before != wanted:
            events.record(
                tx,
                actor,
                "package.signers",
                f"package:{package_name}",
                before={"fingerprints": before},
                after={"fingerprints": wanted, **decided},
            )
    logs.db_operation("update", "apk_signers", {"package_name": package_name, "by": actor.name}, elapsed_ms(start))
    return pinned(db, package_name)


def decide(tx: Executor, package_name: str, wanted: list[str], actor: Actor) -> dict[str, list[int]]:
    """Publish the builds of a package that awaited one of these signers, and refuse the others."""
    names = ", ".join(wanted)
    parameters = {"package_name": package_name, "wanted": wanted, "names": names, "by": actor.name}
    decided: dict[str, list[int]] = {"published": [], "refused": []}
    for row in tx.execute(statement(__package__, "decide_awaiting"), parameters):
        decided[row["state"]].append(row["id"])
    return {state: ids for state, ids in decided.items() if ids}


def lock_package(tx: Executor, package_name: str) -> None:
    """Block publishing, promoting, rolling back and pinning for the package until the transaction ends."""
    tx.execute(_LOCK_PACKAGE, {"package_name": package_name})


_LOCK_PACKAGE = "SELECT pg_advisory_xact_lock(hashtextextended('nexmdm.package ' || %(package_name)s, 0))"

_PINNED = """
SELECT fingerprint, pinned_at, pinned_by FROM apk_signers WHERE package_name = %(package_name)s ORDER BY fingerprint
"""

_PIN = """
INSERT INTO apk_signers (package_name, fingerprint, pinned_by) VALUES (%(package_name)s, %(fingerprint)s, %(by)s)
ON CONFLICT DO NOTHING
"""

_UNPIN = "DELETE FROM apk_signers WHERE package_name = %(package_name)s AND NOT fingerprint = ANY(%(wanted)s::text[])"
