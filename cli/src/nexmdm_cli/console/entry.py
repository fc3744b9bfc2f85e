"""How a browser gets the session token: by a one-time code, in a file that only its owner can read.

A browser is started with a URL as an argument, which every user of the machine can read in the process list. So it is
started with the URL of a file, and the file redirects it to the console with the code. A code can be exchanged for the
token once; after that the file contains the next code, for another browser.
"""

import contextlib
import html
import os
import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={url}">
<title>NexMDM console</title>
<p><a href="{url}">Open the console</a></p>
</html>
"""
PATH = "/start"  # the only path that a page of another origin may link to


class Address(NamedTuple):
    """How to open the console.

    Attributes:
        url: contains a one-time code.
        file: redirects to the console each time it is opened.
    """

    url: str
    file: Path


class Entry:
    """A context manager; the file exists as long as it is active.

    Args:
        authority: host and port of the console.
        token: the token that a code can be exchanged for.
    """

    def __init__(self, authority: str, token: str) -> None:
        self._base, self._token = f"http://{authority}{PATH}", token
        self._codes: set[str] = set()
        self._of_file = ""

    def __enter__(self) -> Address:
        # Mode 0700, so that only its owner can read it, regardless of the umask.
        self._folder = tempfile.TemporaryDirectory(prefix="nexmdm-console-")
        self._file = Path(self._folder.name) / "console.html"
        self._write()
        return Address(self._url(self._new_code()), self._file)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def exchange(self, code: str) -> str | None:
        """The token, if the code has not been used before."""
        if code not in self._codes:
            return None
        self._codes.remove(code)
        if code == self._of_file:
            with contextlib.suppress(
                OSError
            ):  # the file may have been cleaned up with temporary files; this browser can continue
                self._write()
        return self._token

    def _new_code(self) -> str:
        code = secrets.token_urlsafe(32)
        self._codes.add(code)
        return code

    def _url(self, code: str) -> str:
        # In the fragment, so that no server, log or Referer header contains it.
        return f"{self._base}#code={code}"

    def _write(self) -> None:
        self._of_file = self._new_code()
        new = self._file.with_suffix(".new")
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(descriptor, "w", encoding="ascii") as written:
            written.write(PAGE.format(url=html.escape(self._url(self._of_file))))
        os.replace(new, self._file)
