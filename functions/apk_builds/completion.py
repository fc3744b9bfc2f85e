"""Completing a build: its file is verified, then it is published or refused. No transaction is open meanwhile."""

import time

from nexmdm.builds import publishing, signers
from nexmdm.builds.build import StoredBuild
from nexmdm.builds.publishing import BuildState
from nexmdm.runtime import metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import BuildRefused, Conflict
from nexmdm.runtime.settings import Settings


def complete(db: Database, config: Settings, build: StoredBuild, actor: Actor) -> None:
    """Publish or refuse a declared build. For a decided build, repeat the decision.

    Raises:
        BuildRefused: the file differs from the declaration, now or when it was completed before.
        Conflict: nothing was uploaded, or the build was withdrawn.
    """
    if build.state in (BuildState.PUBLISHED, BuildState.AWAITING_SIGNER):
        return
    if build.state == BuildState.REFUSED:
        raise BuildRefused.again(build.refusal or "")
    if build.state != BuildState.DECLARED:
        raise Conflict(f"The build is {build.state}.")
    # Imported here because boto3 takes 280 ms and the manifest's parser 180 ms, and only this route needs them.
    from functions.apk_builds import storage, verification

    start = time.perf_counter()
    pinned = [signer.fingerprint for signer in signers.pinned(db, build.package_name)]
    try:
        with storage.upload(config, build.file.key) as upload:
            facts = verification.verify(upload.chunks, build, pinned)
        publishing.publish(db, build, upload.version, facts, actor)
    except verification.OtherBytes:
        raise
    except BuildRefused as refused:
        publishing.refuse(db, build.build_id, refused.detail, actor)
        raise
    finally:
        metrics.milliseconds("BuildVerification", (time.perf_counter() - start) * 1000)
