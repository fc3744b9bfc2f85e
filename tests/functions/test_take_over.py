"""A phone enrolled again under its alias counts as a new phone: what it inherits, and who may take a device over."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nexmdm.devices import aliases
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import Invalid

from tests.support import agent
from tests.support.api import Answer, call
from tests.support.builds import act, promoted


def made(alias: str = "lobby", **more: Any) -> str:
    answer = call("POST", "/v1/enroll-tokens", {"aliases": [alias], **more})
    assert answer.status == 201, answer.text
    return answer.json["items"][0]["token"]


def register(token: str, alias: str = "lobby", hardware_id: str | None = None) -> Answer:
    body = {"alias": alias} | ({"hardware_id": hardware_id} if hardware_id else {})
    return call("POST", "/v1/register", body, headers={"x-admin-key": token})


def enrolled(alias: str = "lobby") -> dict[str, str]:
    """A device that has reported."""
    device = register(made(alias), alias).json
    assert call("POST", "/v1/heartbeat", agent.heartbeat(), token=device["device_token"]).status == 200
    return device


STATES = ["accepted", "sending", "retry_wait", "unknown", "sent", "failed", "expired", "cancelled"]


def command(db: Database, device: str, state: str, answered: bool = False) -> str:
    name = f"{state}-{answered}"
    secrets = '{"password": "x"}' if state in ("accepted", "sending", "retry_wait", "unknown") else None
    db.execute(
        """INSERT INTO fcm_dispatches (request_id, device_id, action, state, fence, attempts, lease_until, next_at,
               secrets, created_by, expires_at, completed_at)
           SELECT %(name)s, %(device)s, 'reboot', %(state)s, 3, 2,
               CASE WHEN %(state)s = 'sending' THEN now() + interval '1 minute' END,
               CASE WHEN %(state)s = 'retry_wait' THEN now() END,
               %(secrets)s::jsonb, 'operator', now() + interval '1 hour', CASE WHEN %(answered)s THEN now() END""",
        {"name": name, "device": device, "state": state, "answered": answered, "secrets": secrets},
    )
    return name


def test_take_over_cancels_open_commands_under_a_new_fence(db, fake_fcm):
    device = enrolled()["device_id"]
    for state in STATES:
        command(db, device, state)
    command(db, device, "sent", answered=True)
    assert register(made()).status == 200
    rows = {row["request_id"]: row for row in db.execute("SELECT * FROM fcm_dispatches")}
    for state in ("accepted", "sending", "retry_wait", "unknown", "sent"):
        row = rows[f"{state}-False"]
        assert (row["state"], row["fence"], row["attempts"]) == ("cancelled", 4, 2)
        assert row["secrets"] in (None, {})
        assert row["audit"][-1]["event"] == "take-over"
        assert row["audit"][-1]["from"] == state
    for name in ("failed-False", "expired-False", "cancelled-False", "sent-True"):
        assert (rows[name]["state"], rows[name]["fence"]) == (name.split("-")[0], 3)
    for name in ("accepted-False", "sent-False"):
        body = {"reason": "try", "ttl_seconds": 60}
        assert call("POST", f"/v1/commands/{name}/resend", body, headers={"idempotency-key": "k"}).status == 409


def test_take_over_removes_fcm_token_inventory_and_old_token(db):
    old = enrolled()
    device = old["device_id"]
    db.execute("UPDATE device_last_status SET token_shared_at = now()")
    before = datetime.now(UTC)
    new = register(made()).json
    assert new["device_id"] == device
    assert call("POST", "/v1/heartbeat", agent.heartbeat(), token=old["device_token"]).status == 401
    shown = call("GET", f"/v1/devices/{device}").json
    assert (shown["has_fcm_token"], shown["token_shared_at"]) == (False, None)
    assert abs(datetime.fromisoformat(shown["taken_over_at"]) - before) < timedelta(minutes=1)
    assert db.execute("SELECT package FROM device_apps WHERE installed") == []
    assert call("GET", f"/v1/devices/{device}/heartbeats").json["items"], "the history was not kept"
    assert call("POST", "/v1/heartbeat", agent.heartbeat(), token=new["device_token"]).status == 200
    assert call("GET", f"/v1/devices/{device}").json["has_fcm_token"]
    assert db.execute("SELECT package FROM device_apps WHERE installed") == [{"package": "io.unitynodes.unityapp"}]


def test_new_phone_may_not_download_what_its_predecessor_was_asked_to_install(bucket, db):
    promoted(1, percent=100)
    pilot = promoted(2, percent=0)
    device = enrolled()
    assert act(pilot, "rollout", device_ids=[device["device_id"]]).status == 202
    assert call("GET", f"/v1/apk/download/{pilot}", token=device["device_token"]).status == 302
    replacement = register(made()).json
    assert replacement["device_id"] == device["device_id"]
    assert call("GET", f"/v1/apk/download/{pilot}", token=replacement["device_token"]).status == 404


def test_device_shows_that_it_was_not_taken_over(db):
    assert call("GET", f"/v1/devices/{enrolled()['device_id']}").json["taken_over_at"] is None


@pytest.mark.parametrize(
    ("alias", "more", "status"),
    [("lobby", {"uses_allowed": 2}, 409), ("hall", {}, 409), ("hall", {"uses_allowed": 5}, 409), ("lobby", {}, 200)],
)
def test_only_a_single_use_token_of_the_alias_takes_an_existing_device_over(db, alias, more, status):
    old = enrolled()
    token = made(alias, **more)
    assert register(token).status == status
    used = call("GET", "/v1/enroll-tokens").json["items"][0]["uses_consumed"]
    assert used == (1 if status == 200 else 0), "a refused registration used the token"
    beat = call("POST", "/v1/heartbeat", agent.heartbeat(), token=old["device_token"])
    assert beat.status == (401 if status == 200 else 200)


def test_registration_can_be_repeated_while_its_single_use_token_is_valid(db):
    token = made()
    first = register(token).json
    db.execute("UPDATE devices SET created_at = now() - interval '29 minutes'")
    assert register(token).json["device_id"] == first["device_id"]
    db.execute("UPDATE enrollment_tokens SET expires_at = statement_timestamp()")
    register(token).problem(401)
    assert call("POST", "/v1/heartbeat", agent.heartbeat(), token=first["device_token"]).status == 200


def test_take_over_can_be_repeated_while_its_token_is_valid(db):
    device = enrolled()["device_id"]
    token = made()
    assert register(token).json["device_id"] == device
    then = "created_at = now() - interval '1 day', taken_over_at = now() - interval '29 minutes'"
    db.execute(f"UPDATE devices SET {then}")
    assert register(token).json["device_id"] == device


def test_registration_with_a_reusable_token_can_be_repeated_for_15_minutes(db):
    token = made(uses_allowed=3)
    first = register(token).json
    db.execute("UPDATE devices SET created_at = now() - interval '14 minutes'")
    assert register(token).json["device_id"] == first["device_id"]
    db.execute("UPDATE devices SET created_at = now() - interval '15 minutes 1 second'")
    register(token).problem(409)
    assert call("POST", "/v1/heartbeat", agent.heartbeat(), token=first["device_token"]).status == 200


def test_repeated_registration_cancels_nothing(db):
    token = made()
    device = register(token).json["device_id"]
    command(db, device, "accepted")
    assert register(token).status == 200
    assert db.execute("SELECT state FROM fcm_dispatches") == [{"state": "accepted"}]


def test_registrations_and_take_overs_leave_one_event_each(db):
    device = register(made()).json["device_id"]
    register(made())
    events = db.execute(
        "SELECT action, actor, object FROM operator_events WHERE object LIKE 'device:%%' ORDER BY event_id"
    )
    assert events == [
        {"action": action, "actor": "system:registration", "object": f"device:{device}"}
        for action in ("device.register", "device.take_over")
    ]


def test_event_of_a_take_over_has_the_labels_before_and_after(db):
    device = enrolled()["device_id"]
    labels = {f"k{n}": "v" for n in range(32)}
    assert call("PATCH", f"/v1/devices/{device}", {"labels": labels}).status == 200
    assert register(made(labels={"site": "berlin"})).status == 200
    kept = call("GET", f"/v1/devices/{device}").json["labels"]
    assert len(kept) == 32
    assert kept.items() <= (labels | {"site": "berlin"}).items()
    event = call("GET", "/v1/events", query={"action": "device.take_over"}).json["items"][0]
    assert (event["before"]["labels"], event["after"]["labels"]) == (labels, kept)


def test_hardware_id_under_two_aliases_is_shown(db):
    first = register(made("a"), "a", "serial-1").json["device_id"]
    second = register(made("b"), "b", "serial-1").json["device_id"]
    third = register(made("c"), "c").json["device_id"]
    shared = {d: call("GET", f"/v1/devices/{d}").json["hardware_id_shared_with"] for d in (first, second, third)}
    assert shared == {first: ["b"], second: ["a"], third: []}


# --- aliases

VALID = [
    "a",
    "\N{GRINNING FACE}" * 200,
    "\u062e\u0627\u0646\u0647\u200c\u06cc \u0645\u0627",
    "\N{WOMAN}\u200d\N{WOMAN}\u200d\N{GIRL}",
    "\N{HEAVY BLACK HEART}\ufe0f\u200d\N{FIRE}",
    "Straße 5",
    "1",
    "№ 5",
    "เลขที่",
]
UNSEEN = ["", " ", "\u00a0", "\u200b", "a\u0000", "a\nb", "\u202eabc", "a\u2066b", "\ue000", "a\u00adb", "\ufeffa"]
UNSEEN += ["a\u200d", "\u200da", "a \u200db", "\u3164", "\u2028", "\u2800", "a\u061cb", "x" * 201]


@pytest.mark.parametrize("alias", VALID)
def test_valid_aliases_are_stored_unchanged(url, alias):
    assert aliases.checked(alias, "$") == alias
    assert register(made(alias), alias).status == 200


@pytest.mark.parametrize("alias", UNSEEN, ids=ascii)
def test_invisible_aliases_are_refused(url, alias):
    with pytest.raises(Invalid):
        aliases.checked(alias, "$.alias")
    call("POST", "/v1/enroll-tokens", {"aliases": ["ok", alias]}).problem(422, "$.aliases[1]")
    register(made("lobby"), alias).problem(422, "$.alias")
    device = enrolled()["device_id"]
    call("PATCH", f"/v1/devices/{device}", {"alias": alias}).problem(422, "$.alias")


def test_alias_is_trimmed_and_composed(url):
    device = register(made("Cafe\u0301"), "  Cafe\u0301 ").json["device_id"]
    assert call("GET", f"/v1/devices/{device}").json["alias"] == "Caf\u00e9"


@pytest.mark.parametrize(
    ("one", "other"), [("Lobby", "LOBBY"), ("Straße", "STRASSE"), ("Ｌｏｂｂｙ", "lobby"), ("ﬁx", "FIX")]
)
def test_lookalike_alias_is_refused_with_the_other_one_named(db, one, other):
    enrolled(one)
    refused = register(made("hall"), other).problem(409)
    assert one in refused["detail"]
    device = enrolled("third")["device_id"]
    assert one in call("PATCH", f"/v1/devices/{device}", {"alias": other}).problem(409)["detail"]
    rows = {"devices": [{"device_id": device, "alias": other}]}
    assert one in call("POST", "/v1/devices/import", rows).problem(422)["errors"][0]["detail"]


INVISIBLE = ["\u034f", "\ufe0f", "\u180b", "\U000e0100", "\u3164", "\u2800", "\u17b4", " \ufe0f"]


@pytest.mark.parametrize("invisible", INVISIBLE, ids=ascii)
def test_alias_that_differs_by_an_invisible_character_is_refused(db, invisible):
    enrolled("lobby")
    assert "lobby" in register(made("hall"), f"lobby{invisible}").problem(409)["detail"]
    device = enrolled("third")["device_id"]
    call("PATCH", f"/v1/devices/{device}", {"alias": f"lobby{invisible}"}).problem(409)


def test_alias_with_a_joiner_is_refused_where_one_without_it_exists(db):
    enrolled("lobby")
    register(made("hall"), "lob\u200dby").problem(409)


def test_single_use_token_for_a_lookalike_alias_takes_the_device_over(db):
    device = enrolled("Lobby")["device_id"]
    taken = register(made("LOBBY"), "lobby").json
    assert taken["device_id"] == device
    assert call("GET", f"/v1/devices/{device}").json["alias"] == "lobby"


def test_device_without_an_alias_key_is_found_by_its_exact_alias(db):
    device = enrolled("Lobby")["device_id"]
    db.execute("UPDATE devices SET alias_key = NULL, alias = 'Lobby ' || chr(8238)")
    old = "Lobby \u202e"
    db.execute("UPDATE enrollment_tokens SET alias = %(old)s", {"old": old})
    token = made("other")
    db.execute("UPDATE enrollment_tokens SET alias = %(old)s WHERE alias = 'other'", {"old": old})
    assert register(token, old).json["device_id"] == device
    assert call("GET", f"/v1/devices/{device}").json["alias"] == old


def test_device_with_the_exact_alias_is_taken_over_rather_than_the_lookalike_with_the_key(db):
    """As when two devices of an old database looked the same, so that neither has a key."""
    exact = enrolled("Lobby")["device_id"]
    db.execute("UPDATE devices SET alias_key = NULL")
    lookalike = enrolled("lobby")["device_id"]
    assert register(made("Lobby"), "Lobby").json["device_id"] == exact
    assert register(made("lobby"), "lobby").json["device_id"] == lookalike
    aliases_now = {row["id"]: row["alias"] for row in db.execute("SELECT id, alias FROM devices")}
    assert aliases_now == {exact: "Lobby", lookalike: "lobby"}


def test_device_may_be_renamed_to_another_case_of_its_alias(db):
    device = enrolled("Lobby")["device_id"]
    assert call("PATCH", f"/v1/devices/{device}", {"alias": "LOBBY"}).json["alias"] == "LOBBY"
    assert db.execute("SELECT alias_key FROM devices") == [{"alias_key": "lobby"}]
