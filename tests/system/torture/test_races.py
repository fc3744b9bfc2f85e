"""Races that no other suite covers; docs/torture.md lists the others. Each caller has its own connection."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg2
import pytest
from msgspec import UNSET
from nexmdm.alerts import evaluation
from nexmdm.alerts.conditions import Condition
from nexmdm.builds import publishing, rollouts
from nexmdm.commands import batches, queue, single
from nexmdm.commands.queue import Answer, Result
from nexmdm.commands.single import Command, OneDevice, Selected
from nexmdm.devices import aliases
from nexmdm.enrollment import registration
from nexmdm.heartbeats import body, record
from nexmdm.heartbeats.record import Recorded
from nexmdm.retention import policies
from nexmdm.runtime import settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor
from nexmdm.runtime.errors import AliasTaken, Conflict, PayloadMismatch

from tests.support.agent import an_hour_ago, heartbeat
from tests.support.api import call
from tests.support.claims import SCALE, Claim
from tests.support.commands import enrolled
from tests.support.postgres import run_sql
from tests.support.races import errors, meeting, race

CALLERS = 8
DUE = 40
SECOND = timedelta(seconds=1)


@pytest.fixture
def due(url: str, db: Database) -> list[str]:
    """The request_ids of commands that wait to be sent."""
    device_id, _ = enrolled("lobby", "fcm:lobby")
    wait(url, device_id)
    return [f"due-{n}" for n in range(DUE)]


def wait(url: str, device_id: str) -> None:
    run_sql(
        url,
        f"""INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, state, expires_at, created_by)
            SELECT 'due-' || n, '{device_id}', 'ping', 'h', 'accepted', now() + interval '1 hour', 'me'
            FROM generate_series(0, {DUE - 1}) AS n""",
    )


@contextlib.contextmanager
def held(url: str, request_id: str) -> Iterator[None]:
    """Lock the row in another transaction."""
    with contextlib.closing(psycopg2.connect(url)) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT FROM fcm_dispatches WHERE request_id = %s FOR UPDATE", [request_id])
        yield


def test_each_due_command_is_claimed_by_one_caller(url: str, db: Database, due: list[str], claim: Claim):
    for _ in range(5 * SCALE):
        db.execute("UPDATE fcm_dispatches SET state = 'accepted', lease_until = NULL, fence = 0")
        taken = race(url, *[lambda own: queue.claim_due(own, DUE, 90)] * CALLERS)
        assert errors(taken) == []
        assert Counter(c.request_id for claims in taken for c in claims) == dict.fromkeys(due, 1)
    claim("a command is claimed by one caller", f"{CALLERS} claim the same {DUE} commands", 5 * SCALE)


def test_claim_never_waits_for_a_locked_row(url: str, db: Database, due: list[str]):
    db.execute("SET lock_timeout = '5s'")
    with held(url, due[0]):
        taken = queue.claim_due(db, DUE, 90)
    assert {claim.request_id for claim in taken} == set(due[1:])


def age(db: Database, *request_ids: str) -> None:
    """Make the commands three days old, ended, and beyond FCM's time to live."""
    db.execute(
        """UPDATE fcm_dispatches SET state = 'sent', lease_until = NULL, sent_at = now() - interval '3 days',
           created_at = now() - interval '3 days', expires_at = now() - interval '2 days',
           fcm_expires_at = now() - interval '2 days' WHERE request_id = ANY(%(ids)s)""",
        {"ids": list(request_ids)},
    )


def clean(db: Database) -> int:
    return sum(policies.dispatches(db, policies.cutoff(db, 2)))


def test_cleanup_never_waits_for_a_row_of_a_sender(url: str, db: Database, due: list[str]):
    age(db, *due)
    db.execute("SET lock_timeout = '5s'")
    with held(url, due[0]):
        assert clean(db) == DUE - 1


def test_cleanup_and_sending_may_race(url: str, db: Database, due: list[str], claim: Claim):
    """Old settled rows are removed; rows that are claimed, settled or resent at the same moment are kept."""
    old, young = due[: DUE // 2], due[DUE // 2 :]

    def send(own: Database) -> None:
        for taken in queue.claim_due(own, DUE, 90):
            request_id, fence = taken.request_id, taken.fence
            answer = Answer(request_id, fence, Result(outcome="sent", fcm_status="sent"))
            assert queue.settle(own, [answer]) == ["sent"]

    def resend(own: Database) -> int:
        claimed = [
            queue.claim_again(own, name, lease_seconds=90, ttl_seconds=600, actor=Actor("me"), reason="late")
            for name in old
        ]
        return sum(again is not None for again in claimed)

    removed = resent = 0
    for _ in range(3 * SCALE):
        db.execute("DELETE FROM fcm_dispatches")
        wait(url, db.execute("SELECT id FROM devices")[0]["id"])
        age(db, *old)
        sent, gone, also_gone, again = race(url, send, clean, clean, resend)
        assert errors([sent, gone, also_gone, again]) == []
        left = {row["request_id"]: row["state"] for row in db.execute("SELECT request_id, state FROM fcm_dispatches")}
        assert {name: left.get(name) for name in young} == dict.fromkeys(young, "sent")
        # Each old row was either removed, or claimed again by the operator first.
        assert {state for name, state in left.items() if name in old} <= {"sending"}
        assert gone + also_gone + again == len(old)
        removed, resent = removed + gone + also_gone, resent + again
    claim(
        "cleanup removes nothing that is being sent",
        f"2 cleanups against send and resend ({removed} : {resent})",
        3 * SCALE,
    )


# --- deterministic races: the first has not committed when the second begins


def beat(token: str, when: datetime) -> Callable[[Executor], Recorded]:
    report = body.strictly(heartbeat(when), settings.load().unity_package)
    return lambda db: record.for_token(db, token, [report], settings.load())


def test_heartbeat_that_races_with_another_of_its_bucket_is_a_duplicate(url: str, db: Database):
    (_, token), start = enrolled("lobby", "fcm:lobby"), an_hour_ago()
    beat(token, start)(db)
    assert meeting(url, beat(token, start + 11 * SECOND), beat(token, start + 12 * SECOND)).created == set()
    assert db.execute("SELECT count(*) AS n FROM device_heartbeats") == [{"n": 2}]


def test_older_heartbeat_that_races_with_a_newer_one_keeps_the_last_status(url: str, db: Database):
    (_, token), start = enrolled("lobby", "fcm:lobby"), an_hour_ago()
    beat(token, start)(db)
    assert meeting(url, beat(token, start + 40 * SECOND), beat(token, start + 20 * SECOND)).created == {0}
    assert db.execute("SELECT last_ts FROM device_last_status") == [{"last_ts": start + 40 * SECOND}]


def test_command_that_races_with_itself_is_a_repeat(url: str, db: Database):
    device_id, _ = enrolled("lobby", "fcm:lobby")
    command = Command("r-1", OneDevice(device_id), "ping", {}, 600, Actor("me"))
    row, new = meeting(url, lambda tx: single.accept(tx, command), lambda own: single.accept(own, command))
    assert (row.request_id, new) == ("r-1", False)


@pytest.mark.parametrize(
    ("alias", "key"), [("lobby", None), ("LOBBY", aliases.key("lobby"))], ids=["the same", "looks the same"]
)
def test_registration_that_races_for_its_alias_is_a_conflict(url: str, db: Database, alias: str, key: str | None):
    """A device from before alias keys were introduced has none."""
    insert = "INSERT INTO devices (id, alias, alias_key) VALUES ('first', %(alias)s, %(key)s)"
    [token] = call("POST", "/v1/enroll-tokens", {"aliases": ["another"]}).json["items"]
    with pytest.raises(AliasTaken):
        meeting(
            url,
            lambda tx: tx.execute(insert, {"alias": alias, "key": key}),
            lambda own: registration.register(own, token["token"], "lobby", None),
        )
    assert db.execute("SELECT sum(uses_consumed) AS n FROM enrollment_tokens") == [{"n": 0}]


def test_racing_evaluations_open_an_alert_once(url: str, db: Database):
    device_id, _ = enrolled("lobby", "fcm:lobby")
    low = "INSERT INTO device_last_status (device_id, last_ts, battery_pct) VALUES (%(id)s, now(), 9)"
    db.execute(low, {"id": device_id})

    def look(own: Executor) -> evaluation.Evaluated:
        return evaluation.evaluate_condition(own, settings.load(), Condition("low_battery"))

    found = meeting(url, look, look)
    assert (found.opened, found.error) == (0, UNSET)
    assert db.execute("SELECT condition FROM device_alerts") == [{"condition": "low_battery"}]


# --- builds


def to(percent: int) -> rollouts.Audience:
    return rollouts.Audience(percent=percent, interval_seconds=600)


@pytest.fixture
def releases(db: Database) -> list[int]:
    """The ids of three published releases of one package, version codes 1, 2 and 3; the first is current."""
    rows = db.execute(
        """INSERT INTO apk_versions (package_name, version_name, version_code, build_type, file_size, sha256,
               signer_fingerprint, file_path, object_version, state, source)
           SELECT 'com.nexmdm', n::text, n, 'release', 1, repeat('0', 64), repeat('0', 64), 'x', 'v', 'published', 'ci'
           FROM generate_series(1, 3) AS n RETURNING id"""
    )
    ids = [row["id"] for row in rows]
    rollouts.promote(
        db, publishing.find(db, str(ids[0])), rollouts.Audience(percent=100, interval_seconds=600), Actor("me")
    )
    return ids


def test_promotion_rollout_pause_and_rollback_may_race(url: str, db: Database, releases: list[int], claim: Claim):
    def on(build_id: int, act: Callable[..., Any], *how: Any) -> Callable[[Database], Any]:
        return lambda own: act(own, publishing.find(own, str(build_id)), *how)

    _, second, third = releases
    for n in range(5 * SCALE):
        results = race(
            url,
            on(second, rollouts.promote, to(10), Actor("me")),
            on(third, rollouts.promote, to(10), Actor("me")),
            on(second, rollouts.roll_out, to(50), Actor("me")),
            on(third, rollouts.roll_out, to(50), Actor("me")),
            on(second, rollouts.pause, "to see", Actor("me")),
            on(third, rollouts.roll_back, "to see", Actor("me")),
            on(second, rollouts.roll_back, "to see", Actor("me")),
        )
        assert all(isinstance(error, Conflict) for error in errors(results)), results
        chain = db.execute(
            """WITH RECURSIVE chain AS (
                 SELECT id, version_code, replaces_id, 1 AS place FROM apk_versions WHERE is_current
                 UNION ALL SELECT v.id, v.version_code, v.replaces_id, place + 1
                 FROM chain JOIN apk_versions v ON v.id = chain.replaces_id WHERE place < 10)
               SELECT version_code FROM chain ORDER BY place"""
        )
        codes = [row["version_code"] for row in chain]
        assert db.execute("SELECT count(*) AS n FROM apk_versions WHERE is_current") == [{"n": 1}]
        assert codes == sorted(set(codes), reverse=True), (
            f"round {n}: the version codes of the chain do not decrease: {codes}"
        )
    claim("one current build and a descending chain", "concurrent promote, roll out, pause, roll back", 5 * SCALE)


# --- names


def test_racing_batch_and_single_command_share_one_request_id(url: str, db: Database, claim: Claim):
    device_id, _ = enrolled("lobby", "fcm:lobby")
    taken = Counter()
    for n in range(10 * SCALE):
        name = f"same-{n}"
        one = Command(name, OneDevice(device_id), "ping", {}, 600, Actor("me"))
        many = Command(name, Selected({"device_ids": [device_id]}), "ping", {}, 600, Actor("me"))
        results = race(
            url,
            *[lambda own, one=one: single.accept(own, one)[1]] * 2,
            *[lambda own, many=many: batches.accept(own, many, 600)] * 2,
        )
        assert all(isinstance(error, PayloadMismatch) for error in errors(results)), results
        # One call made it, its repeat was recognized, and the two of the other kind were refused.
        assert sorted(result for result in results if isinstance(result, bool)) == [False, True], results
        [row] = db.execute(NAMED, {"name": name})
        taken["batch" if ":" in row["request_id"] else "single"] += 1
    tried = f"batch against single command ({taken['batch']} : {taken['single']})"
    claim("a request_id is used once", tried, 10 * SCALE)


NAMED = "SELECT request_id FROM fcm_dispatches WHERE request_id = %(name)s OR batch_id = %(name)s"
