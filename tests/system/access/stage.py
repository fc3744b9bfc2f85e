"""A system with every principal of the matrix and with an object for every route."""

from dataclasses import dataclass

from nexmdm.runtime import database

from tests.support import builds
from tests.support.api import call, enroll
from tests.support.commands import enrolled


@dataclass
class Stage:
    """The ids that requests name, and the tokens that principals present."""

    names: dict[str, str]
    tokens: dict[str, str]


def set_up() -> Stage:
    device_id, device = enrolled("lobby", "fcm:lobby")
    _, another = enrolled("hall", "fcm:hall")
    _, superseded = enroll("roof")
    _, current = enroll("roof")  # the token's own alias, so that the device is taken over
    assert call("POST", "/v1/heartbeat", {}, token=current).status == 200
    deleted_id, deleted = enroll("cellar")
    assert call("DELETE", f"/v1/devices/{deleted_id}").status == 204
    spare_device, _ = enroll("attic")
    first = builds.promoted(1)
    build = builds.promoted(2)
    assert build != first
    assert builds.act(build, "rollout", staged_rollout_percent=100, install=True).status == 202
    declared = builds.declare(builds.sample("player-190"), 190, package_name="io.unitynodes.unityapp")
    commands(device_id)
    for name in ("nightly", "spare"):
        schedule = {"name": name, "cron": "0 3 * * *", "filter": {"all": True}, "action": "ping"}
        assert call("POST", "/v1/schedules", schedule).status == 201
    for group in ("pilot", "spare"):
        assert call("PUT", f"/v1/groups/{group}", {"filter": {"selector": "stage=pilot"}}).status == 200
    names = {
        "device": device_id,
        "spare_device": spare_device,
        "spare_token": enrollment("spare")[0],
        "build": str(build),
        "installation": installation(device_id),
        "declared": str(declared.json["build_id"]),
        "alert": alert(device_id),
        "mute": mute(),
    }
    tokens = {"device": device, "another": another, "superseded": superseded, "deleted": deleted}
    return Stage(names, tokens | enrollments())


def alert(device_id: str) -> str:
    """Insert an open alert about the device."""
    rows = database.connection().execute(
        "INSERT INTO device_alerts (device_id, condition, rule) VALUES (%(id)s, 'silent', 'silent') RETURNING id",
        {"id": device_id},
    )
    return str(rows[0]["id"])


def mute() -> str:
    body = {"filter": {"all": True}, "until": "2999-01-01T00:00:00Z", "reason": "the hall is rebuilt"}
    return str(call("POST", "/v1/mutes", body).json["mute_id"])


def enrollments() -> dict[str, str]:
    """Enrollment tokens of each scope: valid, expired, revoked and used up."""
    found = {}
    for scope in ("register", "apk_download"):
        for state, change in CHANGES.items():
            token_id, token = enrollment("newcomer", scope)
            if change:
                database.connection().execute(
                    f"UPDATE enrollment_tokens SET {change} WHERE token_id = %(id)s", {"id": token_id}
                )
            found[f"{scope} {state}"] = token
    return found


CHANGES = {
    "good": "",
    "expired": "expires_at = now() - interval '1 second'",
    "revoked": "status = 'revoked'",
    "exhausted": "status = 'exhausted', uses_consumed = uses_allowed",
}


def enrollment(alias: str, scope: str = "register") -> tuple[str, str]:
    made = call("POST", "/v1/enroll-tokens", {"aliases": [alias], "scope": scope, "uses_allowed": 20})
    (token,) = made.json["items"]
    return token["token_id"], token["token"]


def installation(device_id: str) -> str:
    rows = database.connection().execute("SELECT id FROM apk_installations WHERE device_id = %(id)s", {"id": device_id})
    return str(rows[0]["id"])


def commands(device_id: str) -> None:
    """One command that was sent, and two whose outcome is unknown."""
    for request_id, state in (("sent", "sent"), ("unknown", "unknown"), ("lost", "unknown")):
        database.connection().execute(
            "INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, state, expires_at, created_by)"
            " VALUES (%(id)s, %(device)s, 'ping', 'h', %(state)s, now() + interval '1 hour', 'the suite')",
            {"id": request_id, "device": device_id, "state": state},
        )


def contents() -> dict[str, list]:
    """The contents of every table except the count of refused registrations."""
    tables = database.connection().execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition AND relname <> 'registration_refusals' ORDER BY 1"
    )
    names = [table["relname"] for table in tables]
    return {name: database.connection().execute(f"SELECT t::text FROM {name} t ORDER BY 1") for name in names}
