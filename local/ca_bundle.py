"""The certificates that sign Aurora's: fetched once, and used only when they are what was pinned.

python -m local.ca_bundle check PATH   fetch the bundle to PATH when it is not there; fail unless its hash is the
pinned one python -m local.ca_bundle pin PATH     fetch it anew, show what is in it, and pin its hash

The pin is a file of this repository (requirements/rds-ca-bundle.sha256), so that a change of it is reviewed like any
other. It needs nothing but Python: a build runs it before anything is installed.
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
    """Leave the pinned bundle at the path, or nothing.

    Raises:
        SystemExit: nothing is pinned yet, or the bundle is another one.
    """
    if not pin.exists():
        raise SystemExit(
            f"{pin.name}: no hash is pinned. Run `make pin-ca-bundle`, compare what it shows"
            " (docs/deploy.md#the-certificates-of-the-database), and commit the file that it writes."
        )
    pinned = pin.read_text().split()[0]
    content = path.read_bytes() if path.exists() else _fetch(url)
    found = hashlib.sha256(content).hexdigest()
    if found != pinned:
        path.unlink(missing_ok=True)
        raise SystemExit(
            f"{path}: the bundle's SHA-256 is {found}, pinned is {pinned}. AWS adds certificates now and then: look at"
            " what changed with `make pin-ca-bundle` (docs/deploy.md#the-certificates-of-the-database)."
        )
    _write(path, content)


def pin(path: Path, url: str = URL, pin: Path = PIN) -> None:
    """Fetch the bundle, print its certificates, and pin it."""
    content = _fetch(url)
    thumbprints = _thumbprints(content)
    if not thumbprints:
        raise SystemExit(f"{url} answered no PEM certificates")
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
    """Those of the certificates, as `aws rds describe-certificates` gives them: SHA-1, in hexadecimal."""
    certificates = [ssl.PEM_cert_to_DER_cert(text.decode("ascii")) for text in _PEM.findall(content)]
    return [hashlib.sha1(certificate, usedforsecurity=False).hexdigest() for certificate in certificates]


if __name__ == "__main__":
    {"check": check, "pin": pin}[sys.argv[1]](Path(sys.argv[2]))
