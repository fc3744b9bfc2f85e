"""What a phone keeps when its agent restarts: its enrollment, its installed apps, the commands it has run."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Credentials:
    device_id: str
    device_token: str
    fcm_token: str


@dataclass
class App:
    version_code: int
    version_name: str


@dataclass
class Stored:
    """One phone's storage.

    Args:
        commands: of a reference agent; {request_id: {"data": the message, "reports": None until it was run}}.
        pending_installation: of a field agent; the installation that it reports as completed when it starts next.
    """

    credentials: Credentials | None = None
    apps: dict[str, App] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    pending_installation: int | None = None


class Storage:
    """The storage of every phone of a fleet, by alias.

    Args:
        path: a file that keeps it between runs and that only its owner can read; None keeps it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._stored: dict[str, Stored] = {}
        if path and path.exists():
            self._stored = {alias: _stored(values) for alias, values in json.loads(path.read_text()).items()}

    def of(self, alias: str) -> Stored:
        """The storage of one phone. After a change call `save`."""
        return self._stored.setdefault(alias, Stored())

    def other_fcm_token(self, alias: str) -> str | None:
        """The FCM token of another phone of the fleet, as a restored backup brings it."""
        others = (stored.credentials for other, stored in self._stored.items() if other != alias)
        return next((credentials.fcm_token for credentials in others if credentials), None)

    def erase(self, alias: str) -> None:
        """A factory reset."""
        self._stored.pop(alias, None)
        self.save()

    def save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            json.dump({alias: asdict(stored) for alias, stored in self._stored.items()}, file)
        new.replace(self._path)


def _stored(values: dict[str, Any]) -> Stored:
    """Files written before the phones had more than credentials hold these alone; they are read too."""
    if "device_token" in values:
        return Stored(credentials=Credentials(**values))
    credentials = values["credentials"]
    apps = {package: App(**app) for package, app in values["apps"].items()}
    return Stored(credentials and Credentials(**credentials), apps, values["commands"], values["pending_installation"])
