"""What a device keeps of its enrollment, in memory and in a file between runs."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Credentials:
    device_id: str
    device_token: str
    fcm_token: str


class Keyring:
    """The credentials of a fleet by alias. path: a file that only its owner can read; None keeps nothing."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Credentials] = {}
        if path and path.exists():
            self._known = {alias: Credentials(**values) for alias, values in json.loads(path.read_text()).items()}

    def get(self, alias: str) -> Credentials | None:
        return self._known.get(alias)

    def set(self, alias: str, credentials: Credentials | None) -> None:
        """None forgets them."""
        self._known.pop(alias, None)
        if credentials:
            self._known[alias] = credentials
        if self._path:
            self._write(self._path)

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            json.dump({alias: asdict(credentials) for alias, credentials in self._known.items()}, file)
        new.replace(path)
