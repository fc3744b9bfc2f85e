"""Promise E1 under races: a token registers as many devices as it allows, however many requests arrive at once."""

from collections import Counter
from typing import Any

import pytest
from nexmdm.devices import editing, registry
from nexmdm.devices.editing import DevicePatch
from nexmdm.enrollment import registration, tokens
from nexmdm.enrollment.registration import Registered
from nexmdm.runtime import actor
from nexmdm.runtime.database import Database, Row
from nexmdm.runtime.errors import AliasTaken, NotAuthenticated

from tests.support.enrollment import token
from tests.support.races import errors, free, meeting, race


def uses(db: Database, made: Row) -> int:
    sql = "SELECT uses_consumed FROM enrollment_tokens WHERE token_id = %(token_id)s"
    return db.execute(sql, {"token_id": made["token_id"]})[0]["uses_consumed"]


def living(db: Database) -> list[str]:
    return [row["alias"] for row in db.execute("SELECT alias FROM devices WHERE deleted_at IS NULL ORDER BY alias")]


def outcomes(results: list[Any]) -> Counter:
    return Counter(type(result).__name__ for result in results)


@pytest.mark.parametrize("allowed", [1, 5, 24])
def test_token_with_k_uses_registers_k_of_24_callers(url, db, allowed):
    made = token(db, uses=allowed)
    results = race(url, *(lambda own, n=n: registration.register(own, made["token"], f"d{n}", None) for n in range(24)))
    expected = {"Registered": allowed, "NotAuthenticated": 24 - allowed}
    assert outcomes(results) == Counter({name: n for name, n in expected.items() if n})
    assert len(living(db)) == uses(db, made) == allowed
    ids = {result.device_id for result in results if isinstance(result, Registered)}
    assert len(ids) == allowed


def test_guarded_update_limits_the_uses_of_a_token(url, db):
    """Shows that the race can fail: without the guard, the check constraint refuses the surplus use."""
    made = token(db)
    registration.register(db, made["token"], "one", None)
    with pytest.raises(Exception, match="ck_enrollment_tokens_uses"):
        db.execute("UPDATE enrollment_tokens SET uses_consumed = uses_consumed + 1")


def test_tokens_that_race_for_one_alias_register_one_device(url, db):
    made = [token(db, f"label {n}") for n in range(16)]
    results = race(url, *(lambda own, t=t: registration.register(own, t["token"], "lobby", None) for t in made))
    assert outcomes(results) == Counter({"Registered": 1, "AliasTaken": 15})
    assert living(db) == ["lobby"]
    assert sorted(uses(db, t) for t in made) == [0] * 15 + [1]


def test_registration_locks_the_last_status_before_the_device(url, db):
    """Reports take their locks in this order. A phone that is replaced may report while the new one registers."""
    registration.register(db, token(db, "lobby")["token"], "lobby", None)
    db.execute("INSERT INTO device_last_status (device_id, last_ts, last_seen_at) SELECT id, now(), now() FROM devices")
    made = token(db, "lobby")
    meeting(
        url,
        lambda tx: tx.execute("SELECT FROM device_last_status FOR NO KEY UPDATE"),
        lambda own: registration.register(own, made["token"], "lobby", None),
        then=free("devices"),
    )
    assert uses(db, made) == 1


def test_racing_tokens_of_one_alias_are_each_used_once(url, db):
    """Each token takes the device over from the previous one: there is one device, and only its last token is valid."""
    made = [token(db, "lobby") for _ in range(8)]
    results = race(url, *(lambda own, t=t: registration.register(own, t["token"], "lobby", None) for t in made))
    assert outcomes(results) == Counter({"Registered": 8})
    assert len({result.device_id for result in results}) == 1
    assert [uses(db, t) for t in made] == [1] * 8
    alive = "SELECT id FROM devices WHERE token_id = %(id)s OR prior_token_id = %(id)s"
    assert sum(len(db.execute(alive, {"id": registry.token_id(r.device_token)})) for r in results) == 1


def test_concurrent_repeats_of_one_registration_make_one_device(url, db):
    made = token(db)
    results = race(url, *[lambda own: registration.register(own, made["token"], "lobby", "hw")] * 12)
    assert outcomes(results) == Counter({"Registered": 12})
    assert len({result.device_id for result in results}) == 1
    assert uses(db, made) == 1


def test_rename_and_registration_that_race_for_an_alias_leave_one_owner(url, db):
    for attempt in range(5):
        made, name = token(db), f"wanted {attempt}"
        device = registration.register(db, token(db)["token"], f"device {attempt}", None)
        results = race(
            url,
            lambda own, d=device, name=name: editing.update(
                own, d.device_id, DevicePatch(alias=name), actor.operator("me")
            ),
            lambda own, t=made, name=name: registration.register(own, t["token"], name, None),
        )
        assert [type(error) for error in errors(results)] == [AliasTaken]
        assert living(db).count(name) == 1


def test_revocation_refuses_every_later_registration(url, db):
    """A registration that came before the revocation made a device; every later one is refused."""
    made = token(db, uses=20)
    registrations = [lambda own, n=n: registration.register(own, made["token"], f"d{n}", None) for n in range(12)]
    results = race(
        url, *registrations, lambda own: tokens.revoke_tokens(own, [made["token_id"]], actor.operator("the suite"))
    )
    registered = sum(isinstance(result, Registered) for result in results)
    assert outcomes(results[:-1]) == outcomes(
        [Registered(device_token="", device_id="")] * registered + [NotAuthenticated("")] * (12 - registered)
    )
    assert len(living(db)) == uses(db, made) == registered
    with pytest.raises(NotAuthenticated):
        registration.register(db, made["token"], "late", None)


def test_refused_registration_leaves_no_trace(db):
    first, other = token(db, "lobby"), token(db, "another label")
    registration.register(db, first["token"], "lobby", None)
    before = db.execute("SELECT * FROM enrollment_tokens ORDER BY token_id")
    with pytest.raises(AliasTaken):
        registration.register(db, other["token"], "lobby", None)
    assert db.execute("SELECT * FROM enrollment_tokens ORDER BY token_id") == before
    registration.register(db, other["token"], "hall", None)
    assert living(db) == ["hall", "lobby"]
