"""Which certificates may sign a package: pinned by its first release build, changed only explicitly.

The pins hold for every build of the package, debug ones too: Android would refuse to install a build by another signer
over the one that is there.
"""

import time
from typing import Annotated

from msgspec import Meta

from nexmdm.runtime import logs
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms
from nexmdm.runtime.errors import BuildRefused

PackageName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+\Z", max_length=200)]
# SHA-256 of a certificate as apksigner (hex) or keytool (with colons) prints it.
Fingerprint = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}\Z")]


def plain(fingerprint: str) -> str:
    """As it is stored: lower case, without colons."""
    return fingerprint.replace(":", "").lower()


def check(fingerprint: str, pinned: list[str]) -> None:
    """Nothing is wrong with a package that has no pins yet.

    Raises:
        BuildRefused: the package has pinned signers, and this is none of them.
    """
    if pinned and fingerprint not in pinned:
        raise BuildRefused("signer", f"one of the package's pinned signers {', '.join(pinned)}", fingerprint)


def pinned(db: Executor, package_name: str) -> list[Row]:
    return db.execute(_PINNED, {"package_name": package_name}, repeatable=True)


def pin(tx: Executor, package_name: str, fingerprint: str, by: str) -> None:
    tx.execute(_PIN, {"package_name": package_name, "fingerprint": fingerprint, "by": by})


def replace(db: Database, package_name: str, fingerprints: list[str], by: str) -> list[Row]:
    """Make these the package's pinned signers; those that stay keep their date. Returns all of them."""
    start = time.perf_counter()
    wanted = sorted({plain(fingerprint) for fingerprint in fingerprints})
    with db.transaction() as tx:
        lock_package(tx, package_name)
        tx.execute(_UNPIN, {"package_name": package_name, "wanted": wanted})
        for fingerprint in wanted:
            pin(tx, package_name, fingerprint, by)
    logs.db_operation("update", "apk_signers", {"package_name": package_name, "by": by}, elapsed_ms(start))
    return pinned(db, package_name)


def lock_package(tx: Executor, package_name: str) -> None:
    """Until the transaction's end nobody else publishes, promotes, rolls back or pins for the package."""
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
