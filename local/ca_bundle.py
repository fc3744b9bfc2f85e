"""The CA certificates for Aurora: downloaded once, and used only if their hash is the pinned one.

* `python -m local.ca_bundle check PATH` fetches the bundle to PATH when it is not there, and fails unless its hash is
  the pinned one;
* `python -m local.ca_bundle pin PATH` fetches it anew, shows what is in it, and pins its hash.

The pin is a file of this repository (requirements/rds-ca-bundle.sha256), so that a change of it is reviewed like any
other. It needs only Python, because a build runs it before anything is installed.
"""

import hashlib
import re
import ssl
import sys
import urllib.request
from pathlib import Path

PIN = Path(__file__).resolve().parent.parent / "requirements" / "rds-ca-bundle.sha256"
# https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.SSL.html; GovCloud and China have their own
# there.
URL = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def check(path: Path, url: str = URL, pin: Path = PIN) -> None:
    """Ensure that the path has the pinned bundle, or nothing.

    Raises:
        SystemExit: no hash is pinned yet, or the bundle has another one.
    """
    if not pin.exists():
        raise SystemExit(
            f"{pin.name}: no hash is pinned. Run `make pin-ca-bundle`, compare its output"
            " (docs/deploy.md#the-certificates-of-the-database), and commit the file that it writes."
        )
    pinned = pin.read_text().split()[0]
    content = path.read_bytes() if path.exists() else _fetch(url)
    found = hashlib.sha256(content).hexdigest()
    if found != pinned:
        path.unlink(missing_ok=True)
        raise SystemExit(
            f"{path}: the bundle's SHA-256 is {found}, but {pinned} is pinned. AWS adds certificates occasionally:"
            " check the changes with `make pin-ca-bundle` (docs/deploy.md#the-certificates-of-the-database)."
        )
    _write(path, content)


def pin(path: Path, url: str = URL, pin: Path = PIN) -> None:
    """Download the bundle, print its certificates, and pin its hash."""
    content = _fetch(url)
    thumbprints = _thumbprints(content)
    if not thumbprints:
        raise SystemExit(f"{url} did not return PEM certificates")
    _write(path, content)
    digest = hashlib.sha256(content).hexdigest()
    pin.write_text(f"{digest}  global-bundle.pem\n")
    print(*thumbprints, sep="\n")
    print(f"{len(thumbprints)} certificates, SHA-256 {digest}, pinned in {pin}. Compare, then commit it.")


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _thumbprints(content: bytes) -> list[str]:
    """The certificates' thumbprints in the form of `aws rds describe-certificates`: SHA-1 in hexadecimal."""
    certificates = [ssl.PEM_cert_to_DER_cert(text.decode("ascii")) for text in _PEM.findall(content)]
    return [hashlib.sha1(certificate, usedforsecurity=False).hexdigest() for certificate in certificates]


if __name__ == "__main__":
    {"check": check, "pin": pin}[sys.argv[1]](Path(sys.argv[2]))
