"""Enrollment as agents and operators see it: headers and body formats, retries, take-over, and secrets."""

import json
from datetime import datetime
from hashlib import sha256

import pytest
from nexmdm.runtime import database
from nexmdm.runtime.database import Database

from tests.support import agent
from tests.support.api import CONTEXT, OPERATOR, Answer, call, enroll, event


def tokens(*aliases: str, **more) -> list[dict]:
    answer = call("POST", "/v1/enroll-tokens", {"aliases": list(aliases) or ["lobby"], **more})
    assert answer.status == 201, answer.text
    return answer.json["items"]


def register(token: str, alias: str = "lobby", hardware_id: str | None = None) -> Answer:
    body = {"alias": alias} | ({"hardware_id": hardware_id} if hardware_id else {})
    return call("POST", "/v1/register", body, headers={"x-admin-key": token})


def beats(token: str) -> int:
    return call("POST", "/v1/heartbeat", agent.heartbeat(), token=token).status


def listed(token_id: str) -> dict:
    return next(item for item in call("GET", "/v1/enroll-tokens").json["items"] if item["token_id"] == token_id)


# --- the agent's request formats


FORMS = {
    "started by ADB": lambda token: call("POST", "/v1/register", {"alias": "lobby"}, headers={"X-Admin-Key": token}),
    "scanned": lambda token: call("POST", "/v1/register", query={"alias": "lobby"}, headers={"X-Admin": token}),
    "scanned, with an empty object": lambda token: call(
        "POST", "/v1/register", {}, query={"alias": "lobby"}, headers={"X-Admin": token}
    ),
    "bearer": lambda token: call("POST", "/v1/register", {"alias": "lobby"}, token=token),
    "with unknown fields": lambda token: call(
        "POST", "/v1/register", {"alias": "lobby", "more": [1]}, headers={"X-Admin-Key": token}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_request_format_registers(url, form):
    (made,) = tokens()
    answer = FORMS[form](made["token"])
    assert answer.status == 200, answer.text
    assert answer.json.keys() == {"device_token", "device_id"}
    assert len(answer.json["device_id"]) == 36
    assert beats(answer.json["device_token"]) == 200
    shown = call("GET", f"/v1/devices/{answer.json['device_id']}").json
    assert shown["alias"] == "lobby"


def test_device_token_is_32_random_bytes(url):
    seen = {enroll(f"d{n}")[1] for n in range(5)}
    assert {len(token) for token in seen} == {43}
    assert len(seen) == 5


def test_registration_needs_a_credential_and_an_alias(url):
    (made,) = tokens()
    call("POST", "/v1/register", {"alias": "lobby"}).problem(403)
    call("POST", "/v1/register", headers={"x-admin-key": made["token"]}).problem(422, "$.alias")
    for bad in ("", "x" * 201):
        register(made["token"], bad).problem(422, "$.alias")
    call("POST", "/v1/register", query={"alias": ""}, headers={"x-admin": made["token"]}).problem(422, "query.alias")
    assert listed(made["token_id"])["uses_consumed"] == 0


def test_every_invalid_token_gets_the_same_response(db):
    expired, revoked, exhausted, other_scope = tokens("a", "b", "c"), None, None, tokens("d", scope="apk_download")
    expired, revoked, exhausted = expired
    db.execute("UPDATE enrollment_tokens SET expires_at = statement_timestamp() WHERE alias = 'a'")
    assert call("DELETE", f"/v1/enroll-tokens/{revoked['token_id']}").status == 204
    assert register(exhausted["token"], "c").status == 200
    refused = {
        "unknown": register("unknown"),
        "expired": register(expired["token"], "a"),
        "revoked": register(revoked["token"], "b"),
        "exhausted": register(exhausted["token"], "e"),
        "wrong scope": register(other_scope[0]["token"], "d"),
    }
    assert {name: answer.status for name, answer in refused.items()} == dict.fromkeys(refused, 401)
    assert len({answer.text for answer in refused.values()}) == 1


# --- lost responses


@pytest.mark.parametrize("hardware_id", [None, "serial-1"])
def test_repeated_registration_returns_the_same_device_and_uses_the_token_once(url, hardware_id):
    (made,) = tokens()
    first, second = (register(made["token"], hardware_id=hardware_id).json for _ in range(2))
    assert first["device_id"] == second["device_id"]
    assert first["device_token"] != second["device_token"]
    assert listed(made["token_id"])["uses_consumed"] == 1


# Every route that a device calls with its token, as (method, path, body).
CALLS = {
    "heartbeat": lambda device: ("POST", "/v1/heartbeat", agent.heartbeat()),
    "heartbeats": lambda device: ("POST", "/v1/heartbeats", {"heartbeats": [agent.heartbeat()]}),
    "fcm-token": lambda device: ("POST", "/v1/devices/fcm-token", {"device_id": device, "fcm_token": "fcm:1"}),
    "ack": lambda device: ("POST", f"/v1/devices/{device}/ack", {"request_id": "r", "type": "PING_ACK"}),
    "action-result": lambda device: (
        "POST",
        "/v1/action-result",
        {"request_id": "r", "action": "ping", "outcome": "ok", "finished_at": "2026-01-01T00:00:00Z"},
    ),
    "remote-exec": lambda device: (
        "POST",
        "/v1/remote-exec/ack",
        {"exec_id": "r", "correlation_id": "r", "device_id": device, "status": "OK"},
    ),
    "installation": lambda device: (
        "POST",
        "/v1/apk/installation/update",
        {"installation_id": 1, "status": "installing"},
    ),
    "download": lambda device: ("GET", "/v1/apk/download/latest", None),
    "update": lambda device: (
        "GET",
        f"/v1/agent/update?device_id={device}&current_version_code=1&package_name=com.nexmdm",
        None,
    ),
}


def use(name: str, device: str, token: str) -> int:
    """The status of one call by a device. 404 and 304 mean that the token was accepted and nothing was found."""
    method, path, body = CALLS[name](device)
    path, _, query = path.partition("?")
    parameters = dict(pair.split("=") for pair in query.split("&")) if query else None
    return call(method, path, body, token=token, query=parameters).status


@pytest.mark.parametrize("name", CALLS)
def test_older_device_token_retires_and_confirms_nothing(url, name):
    (made,) = tokens()
    *older, newest = (register(made["token"]).json for _ in range(4))
    device = newest["device_id"]
    for registered in [*older, *older]:
        assert use(name, device, registered["device_token"]) != 401
    assert register(made["token"]).status == 200, "an unconfirmed device may register again"


@pytest.mark.parametrize("name", CALLS)
def test_newest_device_token_retires_all_older_ones(url, name):
    (made,) = tokens()
    *older, newest = (register(made["token"]).json for _ in range(4))
    device = newest["device_id"]
    assert use(name, device, newest["device_token"]) != 401
    for registered in older:
        assert use(name, device, registered["device_token"]) == 401
    assert use(name, device, newest["device_token"]) != 401
    register(made["token"]).problem(401)


def test_fcm_token_sent_with_the_first_device_token_is_kept(url, db):
    """Of two queued broadcasts, the first upload is sent after the second registration."""
    (made,) = tokens()
    first, second = (register(made["token"]).json for _ in range(2))
    assert use("fcm-token", first["device_id"], first["device_token"]) == 200
    assert beats(second["device_token"]) == 200
    assert beats(first["device_token"]) == 401
    shown = call("GET", f"/v1/devices/{first['device_id']}").json
    assert shown["has_fcm_token"]


@pytest.mark.parametrize("name", CALLS)
def test_deleted_device_gets_410_for_24_hours_and_401_afterwards(url, db, name):
    device, token = enroll()
    assert beats(token) == 200
    assert call("DELETE", f"/v1/devices/{device}").status == 204
    assert use(name, device, token) == 410
    db.execute("UPDATE devices SET deleted_at = statement_timestamp() - interval '23 hours 59 minutes'")
    assert use(name, device, token) == 410
    db.execute("UPDATE devices SET deleted_at = statement_timestamp() - interval '24 hours 1 second'")
    assert use(name, device, token) == 401


def test_enrollment_token_is_used_up_after_the_first_authenticated_call(url):
    (made,) = tokens()
    first = register(made["token"]).json
    assert beats(first["device_token"]) == 200
    register(made["token"]).problem(401)
    assert beats(first["device_token"]) == 200


def test_another_hardware_id_or_alias_is_a_different_registration(url):
    (made,) = tokens()
    first = register(made["token"], hardware_id="serial-1").json
    register(made["token"], hardware_id="serial-2").problem(401)
    register(made["token"]).problem(401)
    register(made["token"], "hall", "serial-1").problem(401)
    assert beats(first["device_token"]) == 200


# --- take-over


def test_new_token_of_the_same_alias_takes_the_device_over(db):
    device_id, old = enroll("lobby")
    assert beats(old) == 200
    (fresh,) = tokens("lobby")
    new = register(fresh["token"], hardware_id="wiped").json
    assert new["device_id"] == device_id
    assert beats(old) == 401
    assert beats(new["device_token"]) == 200
    assert len(call("GET", f"/v1/devices/{device_id}/heartbeats").json["items"]) >= 1
    assert db.execute("SELECT count(*) AS n FROM devices") == [{"n": 1}]


def test_token_of_another_alias_returns_409_and_is_not_used(url):
    device_id, token = enroll("lobby")
    (other,) = tokens("another label")
    register(other["token"], "lobby").problem(409)
    assert listed(other["token_id"])["uses_consumed"] == 0
    assert listed(other["token_id"])["status"] == "active"
    assert beats(token) == 200
    assert register(other["token"], "hall").json["device_id"] != device_id


def test_reusable_token_takes_the_alias_from_the_body(url):
    (made,) = tokens("batch of March", uses_allowed=3)
    aliases = ["kiosk 1", "kiosk 2", "kiosk 3"]
    ids = {register(made["token"], alias).json["device_id"] for alias in aliases}
    assert len(ids) == 3
    register(made["token"], "kiosk 4").problem(401)
    assert [device["alias"] for device in call("GET", "/v1/devices").json["items"]] == aliases


def test_deleted_device_frees_its_alias_and_loses_its_token(url):
    first_id, first = enroll("lobby")
    assert call("DELETE", f"/v1/devices/{first_id}").status == 204
    second_id, second = enroll("lobby")
    assert second_id != first_id
    assert (beats(first), beats(second)) == (410, 200)


def test_aliases_of_200_characters_of_any_script_are_accepted(url):
    for alias in ("ü" * 200, "受付" * 100, "📱" * 200, "a'b\"c%s{}\\", "-- lobby"):
        (made,) = tokens(alias)
        device = register(made["token"], alias).json
        assert call("GET", f"/v1/devices/{device['device_id']}").json["alias"] == alias


# --- operators manage tokens


def test_tokens_are_created_in_the_order_of_aliases_and_shown_once(url):
    made = tokens("a", "b", "a", note="for the fair", uses_allowed=2, expires_in_sec=60, scope="apk_download")
    assert [item["alias"] for item in made] == ["a", "b", "a"]
    assert len({item["token"] for item in made}) == 3
    shown = call("GET", "/v1/enroll-tokens").json["items"]
    assert len(shown) == 3
    for item in shown:
        assert not {"token", "token_hash"} & item.keys()
        assert (item["scope"], item["note"], item["uses_allowed"]) == ("apk_download", "for the fair", 2)
        assert (item["issued_by"], item["status"], item["uses_consumed"]) == (OPERATOR, "active", 0)
        lifetime = datetime.fromisoformat(item["expires_at"]) - datetime.fromisoformat(item["issued_at"])
        assert lifetime.total_seconds() == 60


def test_response_with_secrets_forbids_caching(url):
    answer = call("POST", "/v1/enroll-tokens", {"aliases": ["lobby"]})
    assert answer.headers["cache-control"] == "no-store"


def test_new_token_has_defaults_and_shows_its_use(url):
    (made,) = tokens()
    assert (made["uses_allowed"], made["scope"]) == (1, "register")
    shown = listed(made["token_id"])
    lifetime = datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(shown["issued_at"])
    assert lifetime.total_seconds() == 1800
    device_id = register(made["token"]).json["device_id"]
    used = listed(made["token_id"])
    assert (used["status"], used["device_id"]) == ("exhausted", device_id)
    assert used["used_at"] == used["last_used_at"] is not None


def test_expired_token_is_shown_as_expired(db):
    (made,) = tokens()
    db.execute("UPDATE enrollment_tokens SET expires_at = statement_timestamp()")
    assert listed(made["token_id"])["status"] == "expired"


def test_tokens_are_revoked_one_by_one_or_in_a_batch(url):
    one, two, three = tokens("a", "b", "c")
    assert call("DELETE", f"/v1/enroll-tokens/{one['token_id']}").status == 204
    call("DELETE", "/v1/enroll-tokens/none").problem(404)
    answer = call("POST", "/v1/enroll-tokens/batch-delete", {"token_ids": [two["token_id"], "none", one["token_id"]]})
    assert answer.status == 200
    assert sorted(answer.json["revoked"]) == sorted([one["token_id"], two["token_id"]])
    statuses = {item["alias"]: item["status"] for item in call("GET", "/v1/enroll-tokens").json["items"]}
    assert statuses == {"a": "revoked", "b": "revoked", "c": "active"}
    assert register(three["token"], "c").status == 200


def test_revoked_token_cannot_repeat_its_registration(url):
    (made,) = tokens("lobby")
    assert register(made["token"], "lobby").status == 200
    assert call("DELETE", f"/v1/enroll-tokens/{made['token_id']}").status == 204
    register(made["token"], "lobby").problem(401)


def test_token_pages_are_complete_when_times_are_equal(url):
    made = {item["token_id"] for item in tokens(*(f"d{n}" for n in range(25)))}  # one statement, hence one issued_at
    seen, cursor = [], None
    while True:
        page = call("GET", "/v1/enroll-tokens", query={"limit": 10} | ({"cursor": cursor} if cursor else {})).json
        seen += [item["token_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 25
    assert set(seen) == made


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"aliases": []}, "$.aliases"),
        ({"aliases": ["a"] * 501}, "$.aliases"),
        ({"aliases": [""]}, "$.aliases[0]"),
        ({"scope": "admin"}, "$.scope"),
        ({"expires_in_sec": 0}, "$.expires_in_sec"),
        ({"expires_in_sec": 1e12}, "$.expires_in_sec"),
        ({"uses_allowed": 0}, "$.uses_allowed"),
        ({"uses_allowed": -1}, "$.uses_allowed"),
    ],
)
def test_invalid_token_requests_are_refused(db, changes, path):
    call("POST", "/v1/enroll-tokens", {"aliases": ["a"], **changes}).problem(422, path)
    assert db.execute("SELECT * FROM enrollment_tokens") == []


def test_operator_routes_require_a_signature_even_if_the_gateway_does_not(url):
    handler, sent = event("POST", "/v1/enroll-tokens", {"aliases": ["a"]})
    del sent["requestContext"]["authorizer"]
    assert handler(sent, CONTEXT)["statusCode"] == 403


# --- secrets


def everything(db: Database) -> str:
    tables = db.execute("""SELECT quote_ident(table_name) AS name FROM information_schema.tables
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE'""")
    return json.dumps([db.execute(f"SELECT * FROM {table['name']}") for table in tables], default=str)


def test_database_holds_secrets_only_as_sha_256(db):
    (made,) = tokens()
    first, second = (register(made["token"]).json for _ in range(2))
    secrets = [made["token"], first["device_token"], second["device_token"]]
    dump = everything(db)
    assert [secret for secret in secrets if secret in dump] == []
    assert all(sha256(secret.encode()).hexdigest() in dump for secret in secrets)
    assert beats(second["device_token"]) == 200
    assert second["device_token"] not in everything(db)


def test_database_outage_is_never_a_401(db):
    (made,) = tokens()
    db.execute("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END $$""")
    db.execute("CREATE TRIGGER refuse BEFORE INSERT ON devices FOR EACH ROW EXECUTE FUNCTION refuse()")
    register(made["token"]).problem(503)
    db.execute("DROP TRIGGER refuse ON devices")
    assert listed(made["token_id"])["uses_consumed"] == 0
    assert register(made["token"]).status == 200
    database.connection().close()
