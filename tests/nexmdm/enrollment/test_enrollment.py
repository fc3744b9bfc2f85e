"""Promise E1 under races: a token is used as often as it allows, whatever happens at once."""

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
from tests.support.races import errors, race


def uses(db: Database, made: Row) -> int:
    sql = "SELECT uses_consumed FROM enrollment_tokens WHERE token_id = %(token_id)s"
    return db.execute(sql, {"token_id": made["token_id"]})[0]["uses_consumed"]


def living(db: Database) -> list[str]:
    return [row["alias"] for row in db.execute("SELECT alias FROM devices WHERE deleted_at IS NULL ORDER BY alias")]


def outcomes(results: list[Any]) -> Counter:
    return Counter(type(result).__name__ for result in results)


@pytest.mark.parametrize("allowed", [1, 5, 24])
def test_a_token_of_k_uses_makes_k_devices_of_24_callers(url, db, allowed):
    made = token(db, uses=allowed)
    results = race(url, *(lambda own, n=n: registration.register(own, made["token"], f"d{n}", None) for n in range(24)))
    expected = {"Registered": allowed, "NotAuthenticated": 24 - allowed}
    assert outcomes(results) == Counter({name: n for name, n in expected.items() if n})
    assert len(living(db)) == uses(db, made) == allowed
    ids = {result.device_id for result in results if isinstance(result, Registered)}
    assert len(ids) == allowed


def test_it_is_the_guarded_update_that_counts(url, db):
    """The race can fail: the check constraint refuses a use too many even when nothing else did."""
    made = token(db)
    registration.register(db, made["token"], "one", None)
    with pytest.raises(Exception, match="ck_enrollment_tokens_uses"):
        db.execute("UPDATE enrollment_tokens SET uses_consumed = uses_consumed + 1")


def test_different_tokens_race_for_one_alias(url, db):
    made = [token(db, f"label {n}") for n in range(16)]
    results = race(url, *(lambda own, t=t: registration.register(own, t["token"], "lobby", None) for t in made))
    assert outcomes(results) == Counter({"Registered": 1, "AliasTaken": 15})
    assert living(db) == ["lobby"]
    assert sorted(uses(db, t) for t in made) == [0] * 15 + [1]


def test_tokens_made_for_the_same_alias_race_and_each_is_used_once(url, db):
    """Each takes the device over from the one before: one device, and only the last token of a device is alive."""
    made = [token(db, "lobby") for _ in range(8)]
    results = race(url, *(lambda own, t=t: registration.register(own, t["token"], "lobby", None) for t in made))
    assert outcomes(results) == Counter({"Registered": 8})
    assert len({result.device_id for result in results}) == 1
    assert [uses(db, t) for t in made] == [1] * 8
    alive = "SELECT id FROM devices WHERE token_id = %(id)s OR prior_token_id = %(id)s"
    assert sum(len(db.execute(alive, {"id": registry.token_id(r.device_token)})) for r in results) == 1


def test_the_same_registration_sent_many_times_at_once_makes_one_device(url, db):
    made = token(db)
    results = race(url, *[lambda own: registration.register(own, made["token"], "lobby", "hw")] * 12)
    assert outcomes(results) == Counter({"Registered": 12})
    assert len({result.device_id for result in results}) == 1
    assert uses(db, made) == 1


def test_an_alias_races_between_a_rename_and_a_registration(url, db):
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


def test_a_revocation_races_with_registrations(url, db):
    """What it came too late for is a device, everything later is refused; nothing is in between."""
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


def test_a_refused_registration_leaves_no_trace(db):
    first, other = token(db, "lobby"), token(db, "another label")
    registration.register(db, first["token"], "lobby", None)
    before = db.execute("SELECT * FROM enrollment_tokens ORDER BY token_id")
    with pytest.raises(AliasTaken):
        registration.register(db, other["token"], "lobby", None)
    assert db.execute("SELECT * FROM enrollment_tokens ORDER BY token_id") == before
    registration.register(db, other["token"], "hall", None)
    assert living(db) == ["hall", "lobby"]
