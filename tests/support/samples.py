"""Create in a test's database what events/*.json refer to, and check the response to each event."""

import json
from pathlib import Path
from typing import Any

from nexmdm.runtime import database

from local.samples import put
from tests.support.api import ROOT
from tests.support.builds import promoted

EVENTS = ROOT / "events"

# The status of an HTTP response; otherwise a key that the result must have.
ANSWERS: dict[str, int | str] = {
    "alerts": 200,
    "apk_builds": 200,
    "apk_builds-declare": 200,  # the same build again, which is already published
    "apk_download": 302,
    "apk_download-update": 200,
    "cleanup": "dry_run",
    "device_reports": 200,
    "device_reports-fcm-token": 200,
    "device_reports-installation": 404,  # there is no installation with the number 1
    "enrollment": 201,
    "fcm_dispatch": 202,
    "fcm_dispatch-after-restore": "unknown",
    "fcm_dispatch-bulk": 202,
    "fcm_dispatch-sweep": "sent",
    "fleet": 200,
    "heartbeat": 200,
    "heartbeat-batch": 200,
    "migrate": "revision",
    "migrate-deploy": "revision",
    "notify": "posted",
    "notify-alarm": "posted",
    "registration": 200,
    "watch": "told",
}


def function(name: str) -> str:
    """The folder of the function that handles an event file."""
    return name.partition("-")[0]


def load(name: str, response_url: str = "") -> dict[str, Any]:
    event = json.loads((EVENTS / f"{name}.json").read_text())
    return event | ({"ResponseURL": response_url} if "ResponseURL" in event else {})


def files() -> list[str]:
    return sorted(Path(path).stem for path in EVENTS.glob("*.json"))


def make_real() -> None:
    """Create what `make samples` puts into a database, and a promoted build of the agent."""
    put(database.connection())
    promoted(2)


def check(name: str, result: Any) -> None:
    """Raise AssertionError if the function did not respond to this event as expected."""
    expected = ANSWERS[name]
    if isinstance(expected, str):
        assert expected in result, (name, result)
    else:
        assert result.get("statusCode") == expected, (name, result)
