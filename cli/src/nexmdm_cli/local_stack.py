"""The stack of `make run` on this machine, and the checkout that it runs from.

`local.run` writes `.nexmdm/stack.json`, readable only by its owner, and removes it when it ends.
"""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

STACK_FILE = Path(".nexmdm") / "stack.json"
LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:\d+)?/?\Z")
# The location of this file in an editable installation, as made by `make setup`.
OWN_CHECKOUT = Path(__file__).resolve().parents[3]


def running() -> dict[str, Any] | None:
    """{url, region, pid} of the running stack and, unless it uses the key pair of its own environment, {access_key_id,
    secret_access_key}; None if none is running."""
    if os.name != "posix":  # `make run` needs POSIX too
        return None
    for folder in _folders():
        file = folder / STACK_FILE
        # Another user's file could name a different server.
        if file.is_file() and file.stat().st_uid == os.getuid():
            with contextlib.suppress(ValueError):  # it is being written
                stack: dict[str, Any] = json.loads(file.read_bytes())
                # A file from a cloned repository could name a server of its author.
                if LOOPBACK.match(stack["url"]) and _alive(stack["pid"]):
                    return stack
    return None


def checkout() -> Path | None:
    """The checkout that contains the current folder, or else the one that this command is installed from."""
    return next((folder for folder in _folders() if (folder / "local" / "check_schema.py").is_file()), None)


def _folders() -> list[Path]:
    here = Path.cwd()
    return [here, *here.parents, OWN_CHECKOUT]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
