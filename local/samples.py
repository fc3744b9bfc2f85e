"""Inserts the objects that events/*.json refer to into a database: `python -m local.samples`, or `make samples`.

These are a device with a low battery, an enrollment token, and a command that waits for its answer; without them `make
invoke` and `sam local invoke` get 401 and 404. Repeating it changes nothing. Builds are not included because they need
S3.
"""

import os

from nexmdm.devices.registry import token_id
from nexmdm.runtime import database
from nexmdm.runtime.database import Executor

from local import schema

DEVICE, TOKEN, ENROLLMENT_TOKEN = "3f0f3e0e-5f0a-4a8e-9d5e-2f9a7c1b6d10", "the-device-token", "the-enrollment-token"


def put(db: Executor) -> None:
    db.execute(
        "INSERT INTO devices (id, alias, token_id, fcm_token, confirmed_at)"
        " VALUES (%(id)s, 'lobby', %(t)s, 'fcm:lobby', now()) ON CONFLICT (id) DO NOTHING",
        {"id": DEVICE, "t": token_id(TOKEN)},
    )
    db.execute(
        "INSERT INTO enrollment_tokens (token_id, alias, token_hash, expires_at, uses_allowed)"
        " VALUES ('sample', 'entrance', %(t)s, now() + interval '1 year', 1000) ON CONFLICT DO NOTHING",
        {"t": token_id(ENROLLMENT_TOKEN)},
    )
    db.execute(
        "INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, state, sent_at, expires_at)"
        " VALUES ('sample-0', %(id)s, 'launch_app', 'h', 'sent', now(), now() + interval '1 hour')"
        " ON CONFLICT DO NOTHING",
        {"id": DEVICE},
    )
    # Causes an alert for the watch.
    db.execute(
        "INSERT INTO device_last_status (device_id, last_ts, battery_pct) VALUES (%(id)s, now() - interval '1 h', 9)"
        " ON CONFLICT DO NOTHING",
        {"id": DEVICE},
    )


def main() -> None:
    schema.prepare()
    db = database.connection()
    put(db)
    print(f"device {DEVICE} (token {TOKEN}), enrollment token {ENROLLMENT_TOKEN}, command sample-0")
    print(f"in {os.environ['DATABASE_URL'].rpartition('@')[2]}")


if __name__ == "__main__":
    main()
