"""Reads package, version, debuggable flag and signer of an APK. Needs pyaxmlparser, the extra `apk`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexmdm_cli.failures import Code, Failure


@dataclass(frozen=True)
class Described:
    """The members of a build's declaration; None means unknown."""

    package_name: str | None
    version_name: str | None
    version_code: int | None
    build_type: str | None
    signer_fingerprint: str | None


def describe(file: Path, given: Described) -> Described:
    """The given values, completed with those in the file.

    Raises:
        Failure: the file cannot be read or lacks a value; names the options to use.
    """
    if all(vars(given).values()):
        return given
    read = _read(file)
    merged = Described(**{name: value or getattr(read, name) for name, value in vars(given).items()})
    if missing := [f"--{name.replace('_', '-')}" for name, value in vars(merged).items() if not value]:
        raise Failure(f"{file.name} does not contain all values.", Code.USAGE, f"Give {', '.join(missing)}.")
    return merged


def _read(file: Path) -> Described:
    try:
        from pyaxmlparser import APK
    except ImportError:
        raise Failure(
            "Reading an APK needs pyaxmlparser, which is not installed.",
            Code.USAGE,
            "Install `nexmdm-cli[apk]`, or give --package-name, --version-name, --version-code, --build-type and"
            " --signer-fingerprint.",
        ) from None
    try:
        apk = APK(str(file))
        debuggable = apk.get_attribute_value("application", "debuggable") == "true"
        code = str(apk.version_code)
        return Described(
            package_name=apk.package,
            version_name=_resolved(apk, apk.version_name),
            version_code=int(code) if code.isdecimal() else None,
            build_type="debug" if debuggable else "release",
            signer_fingerprint=_signer(apk.get_certificates_der_v3() or apk.get_certificates_der_v2()),
        )
    except Exception as error:  # anything may be raised for a file that is not an APK
        raise Failure(f"{file.name} cannot be read as an APK: {error}", Code.USAGE) from None


def _resolved(apk: Any, version_name: str) -> str | None:
    """The text of a version name that refers to a resource, `@7F030001`; None if it depends on the phone."""
    if not version_name.startswith("@"):
        return version_name
    found = apk.get_android_resources().get_resolved_res_configs(int(version_name[1:], 16))
    return str(found[0][1]) if len(found) == 1 else None


def _signer(certificates: list[bytes]) -> str | None:
    """The fingerprint of the only signer; the API rejects several signers anyway."""
    return hashlib.sha256(certificates[0]).hexdigest() if len(certificates) == 1 else None
