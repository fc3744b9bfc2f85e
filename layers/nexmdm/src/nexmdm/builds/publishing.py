"""Publishing builds: declared by an operator or CI, published when verified, unique per version and type."""

import enum
import time
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from nexmdm.activity import events
from nexmdm.builds import signers
from nexmdm.builds.build import StoredBuild, stored
from nexmdm.builds.signers import Fingerprint, PackageName
from nexmdm.runtime import actor as actors
from nexmdm.runtime import logs, metrics, settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, elapsed_ms, statement
from nexmdm.runtime.errors import BuildRefused, Conflict, Invalid, NoSuchBuild
from nexmdm.runtime.pagination import Page, PageQuery, page

BuildType = Literal["debug", "release"]
Text = Annotated[str, Meta(max_length=200)]
LAST_VERSION_CODE = 2**31 - 1
ROLLED_BACK = "rolled back"  # the paused_reason of a build that was rolled back
DECLARED_SECONDS = 86_400  # how long a declaration may wait for its file


class BuildState(enum.StrEnum):
    """States of a build. `adopted` builds come from an old server's database and exist only as history."""

    # Entered by `declare`; left by `complete`, `withdraw`, or by the cleanup after a day.
    DECLARED = "declared"
    # Entered by `complete` if the package has no pinned signer; left when one is pinned, by promote or PUT signers.
    AWAITING_SIGNER = "awaiting_signer"
    # Entered by `complete`, or when its signer is pinned; final. Only a published build can be promoted.
    PUBLISHED = "published"
    # Entered by `complete` if the file differs from the declaration; final. Its version can be declared again.
    REFUSED = "refused"
    # Entered from `declared`, by an operator or by the cleanup; final. Its version can be declared again.
    WITHDRAWN = "withdrawn"
    # Entered only by the adoption of an old server's database; final.
    ADOPTED = "adopted"


class ManifestFacts(Struct, frozen=True):
    """Facts from a build's file that are not part of its declaration.

    Attributes:
        min_sdk: the lowest Android API level that can install it, considering its signature schemes.
        shared_user_id: None if there is none.
    """

    min_sdk: int
    target_sdk: int
    shared_user_id: str | None = None


class Declaration(Struct, forbid_unknown_fields=True, kw_only=True):
    """The declaration of a build. `source` defaults to ci if a ci_run_id is given.

    Attributes:
        signer_fingerprint: SHA-256 of the signer's certificate, hex, with or without colons.
        force: publish the version code 2147483647, which no build can follow.
    """

    package_name: PackageName
    version_name: Annotated[str, Meta(min_length=1, max_length=200)]
    version_code: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    build_type: BuildType
    file_size: Annotated[int, Meta(ge=1)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{64}\Z")]
    signer_fingerprint: Fingerprint
    ci_run_id: Text | None = None
    git_sha: Text | None = None
    notes: Annotated[str, Meta(max_length=10_000)] | None = None
    source: Literal["manual", "ci"] | None = None
    wifi_only: bool = True
    must_install: bool = False
    force: bool = False

    def identity(self) -> dict[str, object]:
        """The members that must be equal when the same build is declared again."""
        return {
            "sha256": self.sha256.lower(),
            "file_size": self.file_size,
            "version_name": self.version_name,
            "signer_fingerprint": signers.plain(self.signer_fingerprint),
        }


class BuildsQuery(PageQuery, kw_only=True):
    """Filters of the list of builds."""

    package_name: Annotated[str, Meta(max_length=200)] | None = None
    build_type: BuildType | None = None
    state: Literal["declared", "awaiting_signer", "published", "refused", "withdrawn", "adopted"] | None = None
    current: bool | None = None


def declare(
    db: Database, declaration: Declaration, *, bucket: str, max_bytes: int, actor: Actor
) -> tuple[StoredBuild, bool]:
    """Reserve a build's package, version code and type for its checksum; return it and whether it is new. Repeatable.

    Raises:
        Invalid: the file is larger than allowed, or no build could follow it.
        Conflict: the package, version code and build type are declared with other values.
    """
    start = time.perf_counter()
    if declaration.file_size > max_bytes:
        raise Invalid("$.file_size", f"is {declaration.file_size} bytes; APK_MAX_BYTES allows {max_bytes}")
    if declaration.version_code == LAST_VERSION_CODE and not declaration.force:
        raise Invalid(
            "$.version_code",
            f"is {LAST_VERSION_CODE}: no build could ever follow it on a phone. Publish it with `force` (CLI: --force)",
        )
    identity = declaration.identity()
    name = {
        "package_name": declaration.package_name,
        "version_code": declaration.version_code,
        "build_type": declaration.build_type,
    }
    key = "{package_name}/{build_type}/{version_code}".format(**name) + f"/{identity['sha256']}.apk"
    parameters = {
        **name,
        **identity,
        "key": key,
        "url": f"s3://{bucket}/{key}",
        "ci_run_id": declaration.ci_run_id,
        "git_sha": declaration.git_sha,
        "notes": declaration.notes,
        "source": declaration.source or ("ci" if declaration.ci_run_id else "manual"),
        "wifi_only": declaration.wifi_only,
        "must_install": declaration.must_install,
        "by": actor.name,
    }
    with db.transaction() as tx:
        made = tx.execute(_DECLARE, parameters)
        if made:
            after = {**name, "version_name": declaration.version_name, "sha256": identity["sha256"]}
            events.record(tx, actor, "build.declare", f"build:{made[0]['build_id']}", after=after)
    found = [stored(row) for row in made] or _select(db, **name, states=_NAMED)
    if not found:
        raise Conflict("This build was withdrawn at this moment. Declare it again.")
    build = found[0]
    for field, value in identity.items():
        if getattr(build, field) != value:
            raise Conflict(
                f"{field}: {name['package_name']} {name['version_code']} ({name['build_type']}) is declared with"
                f" {getattr(build, field)}, not {value}. Raise the version code, or DELETE /v1/apk/builds/"
                f"{build.build_id} if it was never published."
            )
    keys = {"build_id": build.build_id, **name}
    logs.db_operation("create" if made else "idempotency_hit", "apk_versions", keys, elapsed_ms(start))
    return build, bool(made)


def find(db: Executor, build_id: str, *, counted: bool = False) -> StoredBuild:
    """One build with all its values.

    Args:
        counted: include statistics, which reads all its installations.

    Raises:
        NoSuchBuild: there is no such build.
    """
    found = _select(db, build_id=number(build_id), counted=counted)
    if not found:
        raise NoSuchBuild(f"There is no build {build_id!r}.")
    return found[0]


def _select(db: Executor, **filters: Any) -> list[StoredBuild]:
    """The builds that match all filters, the parameters of builds.sql, newest first."""
    parameters = {**_NO_FILTER, **filters, "agent_package": settings.load().agent_package}
    return [stored(row) for row in db.execute(_BUILDS, parameters, repeatable=True)]


def warnings(db: Executor, build: StoredBuild, agent_package: str) -> list[str]:
    """Sentences that an operator should read before rolling out the build."""
    code = build.version_code
    parameters = {
        "min_sdk": build.min_sdk,
        "package_name": build.package_name,
        "version_code": code,
        "version_name": build.version_name,
        "agent_package": agent_package,
    }
    said = []
    [row] = db.execute(_WARNINGS, parameters, repeatable=True)
    if row["too_old"]:
        devices = f"{row['too_old']} enrolled device{'s have' if row['too_old'] > 1 else ' has'}"
        said.append(f"{devices} an Android below API level {build.min_sdk} and cannot install this build.")
    if build.paused_reason == ROLLED_BACK and row["running"]:
        devices = f"{row['running']} device{'s run' if row['running'] > 1 else ' runs'}"
        said.append(
            f"{devices} version code {code} or a newer one. Android rejects a lower versionCode: to"
            f" return to the earlier code, publish it under a version code above {code}."
        )
    return said


def number(build_id: str) -> int:
    """The build id from a path; 0 for an invalid one."""
    return int(build_id) if build_id.isascii() and build_id.isdigit() and len(build_id) <= 9 else 0


def list_builds(db: Executor, query: BuildsQuery) -> Page[StoredBuild]:
    """A page of builds with their statistics, newest first."""
    (before,) = query.after(int)
    if before is not None and not 0 < before < 2**31:
        raise Invalid("query.cursor", "is not a cursor of this list; take next_cursor of the page before")
    found = _select(
        db,
        package_name=query.package_name,
        build_type=query.build_type,
        states=None if query.state is None else [query.state],
        current=query.current,
        before=before,
        limit=query.limit + 1,
    )
    return page(found, query.limit, ("build_id",))


def publish(db: Database, build: StoredBuild, object_version: str, facts: ManifestFacts, actor: Actor) -> None:
    """Publish a verified build, unless a concurrent call did. If the package has no pinned signer, the build awaits
    one.

    Raises:
        BuildRefused: its signer is not pinned, a higher version code is current, or its sharedUserId differs.
    """
    start = time.perf_counter()
    parameters = {
        "build_id": build.build_id,
        "package_name": build.package_name,
        "build_type": build.build_type,
        "signer_fingerprint": build.signer_fingerprint,
        "object_version": object_version,
        "min_sdk": facts.min_sdk,
        "target_sdk": facts.target_sdk,
        "shared_user_id": facts.shared_user_id,
        "by": actor.name,
    }
    with db.transaction() as tx:
        signers.lock_package(tx, build.package_name)
        standing = tx.execute(_STANDING, parameters)[0]
        signers.check(build.file.signer_fingerprint, standing["pinned"])
        current = standing["current_version_code"]
        if current is not None and build.version_code < current:
            raise BuildRefused(
                "version_code", f"at least {current}, that of the current build", str(build.version_code)
            )
        if standing["known"] and standing["shared_user_id"] != facts.shared_user_id:
            expected = f"{standing['shared_user_id'] or 'none'}, that of the earlier builds"
            raise BuildRefused("sharedUserId", expected, facts.shared_user_id or "none")
        state = BuildState.PUBLISHED if standing["pinned"] else BuildState.AWAITING_SIGNER
        published = tx.execute(_PUBLISH, {**parameters, "state": state})
        if published:
            before, after = {"state": BuildState.DECLARED}, {"state": state}
            events.record(tx, actor, "build.complete", f"build:{build.build_id}", before=before, after=after)
    if published:
        metrics.count("BuildPublished")
        keys = {"build_id": build.build_id, "state": state, "by": actor.name}
        logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))


def refuse(db: Database, build_id: int, reason: str, actor: Actor) -> None:
    """Record that the file of a declared build differs from its declaration."""
    start = time.perf_counter()
    with db.transaction() as tx:
        if tx.execute(_REFUSE, {"build_id": build_id, "why": reason, "by": actor.name}):
            after = {"state": BuildState.REFUSED, "refusal": reason}
            events.record(tx, actor, "build.refuse", f"build:{build_id}", after=after)
    metrics.count("BuildRefused")
    keys = {"build_id": build_id, "state": "refused", "why": reason, "by": actor.name}
    logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))


def expire(db: Database) -> int:
    """Withdraw builds that were declared a day ago and never completed; return how many."""
    start = time.perf_counter()
    actor = actors.system("cleanup")
    with db.transaction() as tx:
        expired = tx.execute(_EXPIRE, {"seconds": DECLARED_SECONDS, "by": actor.name})
        for row in expired:
            events.record(tx, actor, "build.expire", f"build:{row['id']}", after={"state": BuildState.WITHDRAWN})
    if expired:
        keys = {"expired": len(expired), "by": actor.name}
        logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))
    return len(expired)


def withdraw(db: Database, build_id: str, actor: Actor) -> None:
    """Withdraw a declared, unpublished build, so that its version can be declared again. Repeating it changes nothing.

    Raises:
        NoSuchBuild: there is no such build.
        Conflict: it is not in state `declared`.
    """
    start = time.perf_counter()
    with db.transaction() as tx:
        withdrawn = tx.execute(_WITHDRAW, {"build_id": number(build_id), "by": actor.name})
        if withdrawn:
            after = {"state": BuildState.WITHDRAWN}
            events.record(tx, actor, "build.withdraw", f"build:{withdrawn[0]['id']}", after=after)
    if not withdrawn:
        build = find(db, build_id)
        if build.state != BuildState.WITHDRAWN:
            raise Conflict(f"The build is {build.state}; only a declared build can be withdrawn.")
    keys = {"build_id": build_id, "state": "withdrawn", "by": actor.name}
    logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))


# The states in which a build occupies its package, version code and type.
_NAMED = [BuildState.DECLARED, BuildState.AWAITING_SIGNER, BuildState.PUBLISHED]
_NO_FILTER = {
    "counted": True,
    "build_id": None,
    "package_name": None,
    "version_code": None,
    "build_type": None,
    "states": None,
    "current": None,
    "before": None,
    "limit": 1,
}
_BUILDS = statement(__package__, "builds")
_DECLARE = statement(__package__, "declare")

_WARNINGS = """
SELECT count(*) FILTER (WHERE sdk_int < %(min_sdk)s) AS too_old, count(*) FILTER (WHERE runs.version >= 0) AS running
FROM devices CROSS JOIN LATERAL reported_version_v2(
    id, %(package_name)s, %(version_code)s, %(version_name)s, %(agent_package)s) AS runs
WHERE deleted_at IS NULL
"""

# The sharedUserId of the last build whose manifest was read for it; `known` is false if there is none.
_STANDING = """
SELECT last.id IS NOT NULL AS known, last.shared_user_id,
    ARRAY(SELECT fingerprint FROM apk_signers WHERE package_name = %(package_name)s ORDER BY fingerprint) AS pinned,
    (SELECT version_code FROM apk_versions
     WHERE package_name = %(package_name)s AND build_type = %(build_type)s AND is_current) AS current_version_code
FROM (VALUES (1)) AS one LEFT JOIN LATERAL (
    SELECT id, shared_user_id FROM apk_versions
    WHERE package_name = %(package_name)s AND state IN ('awaiting_signer', 'published') AND min_sdk IS NOT NULL
    ORDER BY version_code DESC, id DESC LIMIT 1) AS last ON true
"""

_PUBLISH = """
UPDATE apk_versions SET state = %(state)s, object_version = %(object_version)s,
    published_at = CASE WHEN %(state)s = 'published' THEN clock_timestamp() END,
    min_sdk = %(min_sdk)s, target_sdk = %(target_sdk)s, shared_user_id = %(shared_user_id)s,
    audit = audit || jsonb_build_object('event', CASE WHEN %(state)s = 'published' THEN 'publish' ELSE 'verify' END,
        'by', %(by)s, 'at', clock_timestamp())
WHERE id = %(build_id)s AND state = 'declared'
RETURNING id
"""

_REFUSE = """
UPDATE apk_versions SET state = 'refused', refusal = %(why)s,
    audit = audit || jsonb_build_object('event', 'refuse', 'by', %(by)s, 'at', clock_timestamp())
WHERE id = %(build_id)s AND state = 'declared'
RETURNING id
"""

_EXPIRE = """
UPDATE apk_versions SET state = 'withdrawn',
    audit = audit || jsonb_build_object('event', 'expire', 'by', %(by)s, 'at', clock_timestamp())
WHERE state = 'declared' AND uploaded_at < clock_timestamp() - make_interval(secs => %(seconds)s)
RETURNING id
"""

_WITHDRAW = """
UPDATE apk_versions SET state = 'withdrawn',
    audit = audit || jsonb_build_object('event', 'withdraw', 'by', %(by)s, 'at', clock_timestamp())
WHERE id = %(build_id)s AND state = 'declared'
RETURNING id
"""
