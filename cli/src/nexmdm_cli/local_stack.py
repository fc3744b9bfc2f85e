"""The stack of `make run` on this machine, and the checkout that it runs from.

`local.run` writes `.nexmdm/stack.json`, readable only by its owner, and removes it when it ends.
"""

import contextlib
import os
import re
from pathlib import Path

import msgspec
from msgspec import Struct

STACK_FILE = Path(".nexmdm") / "stack.json"
LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:\d+)?/?\Z")
# The location of this file in an editable installation, as made by `make setup`.
OWN_CHECKOUT = Path(__file__).resolve().parents[3]


class LocalStack(Struct):
    """What `local.run` says of itself. Without a key pair it took the one of its own environment."""

    url: str
    region: str
    pid: int
    access_key_id: str | None = None
    secret_access_key: str | None = None


def running() -> LocalStack | None:
    """The stack that runs; None when none does."""
    if os.name != "posix":  # `make run` needs POSIX too
        return None
    for folder in _folders():
        file = folder / STACK_FILE
        # Another user's file could name a different server.
        if file.is_file() and file.stat().st_uid == os.getuid():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # it is being written
                stack = msgspec.json.decode(file.read_bytes(), type=LocalStack)
                # A file from a cloned repository could name a server of its author.
                if LOOPBACK.match(stack.url) and _alive(stack.pid):
                    return stack
    return None


def checkout() -> Path | None:
    """The checkout that contains the current folder, or else the one that this command is installed from."""
    return next((folder for folder in _folders() if (folder / "local" / "check_schema.py").is_file()), None)


def _folders() -> list[Path]:
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was deleted
        return [OWN_CHECKOUT]
    return [here, *here.parents, OWN_CHECKOUT]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
