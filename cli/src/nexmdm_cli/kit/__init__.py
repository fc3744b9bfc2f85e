"""Shell scripts that set a phone up over adb: one for each alias, complete with its secrets."""

import os
import re
import shlex
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

# Android's own rule for application ids.
PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")
MARK = "# --- values\n"


@dataclass(frozen=True)
class Kit:
    """What a script is told. Empty HMAC keys are left out of the configuration; disable: package names."""

    server_url: str
    admin_key: str
    token_id: str
    alias: str
    package: str
    admin_component: str
    receiver: str
    version_name: str
    version_code: str
    apk: str
    sha256: str
    download_url: str
    hmac_primary_key: str = ""
    hmac_rotation_key: str = ""
    disable: str = ""

    def script(self) -> str:
        """The script's text, ready to run."""
        values = "".join(f"{f.name.upper()}={shlex.quote(str(getattr(self, f.name)))}\n" for f in fields(self))
        body = files(__name__).joinpath("enroll.sh").read_text()
        # A value may hold a $ or end with a backslash, and means both literally.
        return body.replace(MARK, f"{MARK}# shellcheck disable=SC1003,SC2016\n{{\n{values}}}\n")

    def save(self, folder: Path, name: str) -> Path:
        """A script that only its owner can read and run."""
        file = folder / f"{name}.sh"
        file.unlink(missing_ok=True)  # an earlier one could be open to others
        with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o700), "w") as script:
            script.write(self.script())
        return file


def packages(text: str) -> list[str]:
    """The package names of a file: one a line, `#` begins a comment.

    Raises:
        ValueError: a line is no package name; says which.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        name = line.partition("#")[0].strip()
        if name and not PACKAGE.fullmatch(name):
            raise ValueError(f"line {number} is not a package name: {name[:100]!r}")
        if name:
            found.append(name)
    return found
