"""A phone's persistent storage: its enrollment, its installed apps, the commands that it has run."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

# The data of a phone in the file.
Json: TypeAlias = dict[str, Any]
# The JSON body of a phone's request, in the agent's form: docs/device.md.
Body: TypeAlias = dict[str, Any]


@dataclass
class Report:
    """A request that reports the result of a command."""

    path: str
    body: Body
    header: str


@dataclass
class Command:
    """A stored command. reports: None until it was run; `ping` is reported by a heartbeat."""

    data: dict[str, str]
    reports: list[Report | Literal["ping"]] | None = None


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
        commands: of a reference agent, by request_id.
        pending_installation: of a field agent; the installation that it reports as completed when it starts next.
    """

    credentials: Credentials | None = None
    apps: dict[str, App] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    pending_installation: int | None = None


class Storage:
    """The storage of every phone of a fleet, by alias.

    Args:
        path: a file that preserves it between runs and that only its owner can read; None keeps it in memory.
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
        """The FCM token of another phone of the fleet, as after a restored backup."""
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


def _stored(values: Json) -> Stored:
    """Read a file. Older files contain only credentials."""
    if "device_token" in values:
        return Stored(credentials=Credentials(**values))
    credentials = values["credentials"]
    apps = {package: App(**app) for package, app in values["apps"].items()}
    commands = {request_id: _command(command) for request_id, command in values["commands"].items()}
    return Stored(credentials and Credentials(**credentials), apps, commands, values["pending_installation"])


def _command(values: Json) -> Command:
    reports = values["reports"]
    if reports is not None:
        reports = [report if report == "ping" else Report(**report) for report in reports]
    return Command(values["data"], reports)
