"""Verifies that an uploaded file is the declared build, in one pass over the bytes from S3, spooled to local disk.

First size and SHA-256, then the signature, then the manifest: a file is parsed only if its bytes are the declared ones,
and a manifest only if the signature is valid.
"""

import mmap
import tempfile
from collections.abc import Iterable
from hashlib import sha256
from typing import IO

from nexmdm.builds import signers
from nexmdm.builds.build import StoredBuild
from nexmdm.builds.publishing import ManifestFacts
from nexmdm.runtime.errors import BuildRefused

from functions.apk_builds import apk_entries, apk_file, apk_manifest, apk_signature
from functions.apk_builds.apk_entries import Entry
from functions.apk_builds.apk_file import Apk


class OtherBytes(BuildRefused):
    """The file is not the declared one, which can still be uploaded."""


# The first Android versions that verify signatures of scheme v2, and of scheme v3.
_V2_SINCE, _V3_SINCE = 24, 28


def verify(chunks: Iterable[bytes], build: StoredBuild, pinned: list[str]) -> ManifestFacts:
    """Verify that the file is the one that `build` declares; return further facts from its manifest.

    Raises:
        OtherBytes: the size or checksum differs.
        BuildRefused: the file's contents differ from the declaration.
    """
    with tempfile.TemporaryFile(prefix="apk-") as spool:
        _spool(chunks, build, spool)
        # Unmapped with its last view, because the traceback of a refusal still refers to the data.
        data = memoryview(mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ))
        apk = apk_file.parse(data)
        fingerprint = apk_signature.verify(apk)
        if fingerprint != build.signer_fingerprint:
            raise BuildRefused("signer_fingerprint", f"the declared {build.signer_fingerprint}", fingerprint)
        signers.check(fingerprint, pinned)
        entries = apk_entries.read(apk)
        manifest = apk_manifest.facts(apk, entries)
        apk_manifest.check_installable(manifest, entries)
        _check_manifest(manifest, build)
        min_sdk = max(manifest.min_sdk, _signed_since(apk, entries))
        return ManifestFacts(min_sdk, manifest.target_sdk, manifest.shared_user_id)


def _signed_since(apk: Apk, entries: dict[str, Entry]) -> int:
    """The first Android version that finds a signature it supports. Before 7 that is JAR signing, which is not
    verified."""
    if any(name.startswith("META-INF/") and name.endswith(".SF") for name in entries):
        return 1
    return _V2_SINCE if apk_signature.V2 in {id_ for id_, _ in apk.pairs} else _V3_SINCE


def _spool(chunks: Iterable[bytes], build: StoredBuild, spool: IO[bytes]) -> None:
    digest, size = sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > build.file_size:
            raise OtherBytes("file_size", f"the declared {build.file_size} bytes", "more")
        digest.update(chunk)
        spool.write(chunk)
    spool.flush()
    if size != build.file_size:
        raise OtherBytes("file_size", f"the declared {build.file_size} bytes", str(size))
    if digest.hexdigest() != build.sha256:
        raise OtherBytes("sha256", f"the declared {build.sha256}", digest.hexdigest())


def _check_manifest(manifest: apk_manifest.Manifest, build: StoredBuild) -> None:
    debuggable = build.build_type == "debug"
    pairs = [
        ("package_name", build.package_name, manifest.package_name),
        ("version_code", build.version_code, manifest.version_code),
        ("version_name", build.version_name, manifest.version_name),
        ("build_type", build.build_type, "debug" if manifest.debuggable else "release"),
    ]
    for name, declared, found in pairs:
        if declared != found:
            extra = f" (android:debuggable={str(not debuggable).lower()})" if name == "build_type" else ""
            raise BuildRefused(name, f"the declared {declared}", f"{found} in the manifest{extra}")
