"""What events/*.json speak of, made real in a test's database, and how each of them is answered."""

import json
from pathlib import Path
from typing import Any

from nexmdm import database
from nexmdm.devices import token_id

from tests.api import ROOT
from tests.builds import promoted

EVENTS = ROOT / "events"
DEVICE, TOKEN, ENROLLMENT_TOKEN = "3f0f3e0e-5f0a-4a8e-9d5e-2f9a7c1b6d10", "the-device-token", "the-enrollment-token"

# The status of an HTTP answer; else a key that the result must have.
ANSWERS: dict[str, int | str] = {
    "apk_builds": 200,
    "apk_builds-declare": 200,  # the same build again: the one that is published already
    "apk_download": 302,
    "apk_download-update": 200,
    "cleanup": "dry_run",
    "device_reports": 200,
    "device_reports-fcm-token": 200,
    "device_reports-installation": 404,  # no installation has the number 1
    "enrollment": 200,
    "enrollment-tokens": 201,
    "fcm_dispatch": 202,
    "fcm_dispatch-after-restore": "unknown",
    "fcm_dispatch-bulk": 202,
    "fcm_dispatch-sweep": "sent",
    "fleet": 200,
    "heartbeat": 200,
    "heartbeat-batch": 200,
    "migrate": "revision",
    "notify": "posted",
    "notify-alarm": "posted",
    "watch": "told",
}


def function(name: str) -> str:
    """The folder of the function that an event file is for."""
    return name.partition("-")[0]


def load(name: str, response_url: str = "") -> dict[str, Any]:
    event = json.loads((EVENTS / f"{name}.json").read_text())
    return event | ({"ResponseURL": response_url} if "ResponseURL" in event else {})


def files() -> list[str]:
    return sorted(Path(path).stem for path in EVENTS.glob("*.json"))


def make_real() -> None:
    """A device with a low battery, an enrolment token, a command that waits for its answer, a promoted build of
    the agent."""
    db = database.environment()
    db.execute(
        "INSERT INTO devices (id, alias, token_id, fcm_token, confirmed_at)"
        " VALUES (%(id)s, 'lobby', %(t)s, 'fcm:lobby', now())",
        {"id": DEVICE, "t": token_id(TOKEN)},
    )
    db.execute(
        "INSERT INTO enrollment_tokens (token_id, alias, token_hash, expires_at)"
        " VALUES ('sample', 'entrance', %(t)s, now() + interval '1 hour')",
        {"t": token_id(ENROLLMENT_TOKEN)},
    )
    db.execute(
        "INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, state, sent_at, expires_at)"
        " VALUES ('sample-0', %(id)s, 'launch_app', 'h', 'sent', now(), now() + interval '1 hour')",
        {"id": DEVICE},
    )
    # Something for the watch to tell.
    db.execute(
        "INSERT INTO device_last_status (device_id, last_ts, battery_pct) VALUES (%(id)s, now() - interval '1 h', 9)",
        {"id": DEVICE},
    )
    promoted(2)


def check(name: str, result: Any) -> None:
    """Raises when the function did not answer this event as it should."""
    expected = ANSWERS[name]
    if isinstance(expected, str):
        assert expected in result, (name, result)
    else:
        assert result.get("statusCode") == expected, (name, result)
