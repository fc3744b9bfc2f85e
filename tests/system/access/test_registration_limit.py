"""Refused registrations are counted per IP address in PostgreSQL, so that the limit holds across processes."""

from collections import Counter

import httpx
import pytest
from nexmdm.enrollment import rate_limit, registration
from nexmdm.retention import policies
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import NotAuthenticated, TooManyAttempts

from tests.support.enrollment import token
from tests.support.gateway import gateway
from tests.support.races import race

HERE, THERE = "203.0.113.7", "203.0.113.8"


def guess(db: Database, address: str | None = HERE) -> None:
    registration.register(db, "a guess", "lobby", None, address)


def outcome(db: Database, address: str | None = HERE) -> str:
    with pytest.raises((NotAuthenticated, TooManyAttempts)) as raised:
        guess(db, address)
    return raised.type.__name__


def refused(db: Database) -> dict[str, int]:
    return {row["source"]: row["refused"] for row in db.execute("SELECT source, refused FROM registration_refusals")}


def exhaust(db: Database, address: str = HERE) -> None:
    assert [outcome(db, address) for _ in range(rate_limit.ALLOWED)] == ["NotAuthenticated"] * rate_limit.ALLOWED


def age(db: Database, seconds: float) -> None:
    """Let `seconds` pass by moving the times of the rows into the past."""
    db.execute("UPDATE registration_refusals SET since = since - make_interval(secs => %(s)s)", {"s": seconds})


def test_limit_is_exact_under_races(url, db):
    callers = rate_limit.ALLOWED + 20
    results = race(url, *[guess] * callers)
    assert Counter(type(result).__name__ for result in results) == {
        "NotAuthenticated": rate_limit.ALLOWED,
        "TooManyAttempts": 20,
    }
    assert refused(db) == {HERE: rate_limit.ALLOWED}


def test_attempt_beyond_the_limit_writes_nothing(db):
    exhaust(db)
    row = "SELECT xmin, xmax, ctid::text, * FROM registration_refusals"
    before = db.execute(row)
    assert [outcome(db) for _ in range(50)] == ["TooManyAttempts"] * 50
    assert db.execute(row) == before, "a row was written or locked"


def test_valid_token_registers_beyond_the_limit(db):
    made = token(db)
    exhaust(db)
    assert outcome(db) == "TooManyAttempts"
    assert registration.register(db, made["token"], "lobby", None, HERE).device_id
    assert outcome(db) == "TooManyAttempts"


def test_ip_addresses_have_separate_limits(db):
    exhaust(db)
    assert (outcome(db), outcome(db, THERE)) == ("TooManyAttempts", "NotAuthenticated")


def test_limit_ends_after_a_minute(db):
    """The minute begins with the first refusal; further attempts do not extend it."""
    assert outcome(db) == "NotAuthenticated"
    age(db, rate_limit.WINDOW_SECONDS - 5)
    assert {outcome(db) for _ in range(rate_limit.ALLOWED - 1)} == {"NotAuthenticated"}
    assert outcome(db) == "TooManyAttempts"
    age(db, 6)
    assert outcome(db) == "NotAuthenticated"
    assert refused(db) == {HERE: 1}


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        *[(odd, "unknown") for odd in (None, "", "localhost", "1.2.3.4, 5.6.7.8", "\x00", "9" * 10_000)],
    ],
)
def test_ipv6_addresses_are_grouped_by_network(address, source):
    assert rate_limit.source(address) == source


def test_only_refused_registrations_count(db):
    made = token(db)
    registration.register(db, made["token"], "lobby", None, HERE)
    assert refused(db) == {}


def test_cleanup_removes_ip_addresses(db):
    exhaust(db)
    age(db, 3601)
    outcome(db, THERE)
    assert sum(policies.tokens(db, db.execute("SELECT now() AS at")[0]["at"])) == 0
    assert refused(db) == {THERE: 1}


def test_response_beyond_the_limit_has_a_retry_after(url):
    """Goes through the gateway, whose two environments are two processes."""
    with gateway(url) as address, httpx.Client(base_url=address) as api:
        answers = [
            api.post("/v1/register", json={"alias": "lobby"}, headers={"X-Admin-Key": f"guess {n}"})
            for n in range(rate_limit.ALLOWED + 1)
        ]
    assert {answer.status_code for answer in answers[:-1]} == {401}
    assert answers[-1].status_code == 429
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert answers[-1].headers["retry-after"] == str(rate_limit.WINDOW_SECONDS)
    assert str(rate_limit.WINDOW_SECONDS) in answers[-1].json()["detail"]
