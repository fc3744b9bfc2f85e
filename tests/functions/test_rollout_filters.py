"""A build is offered to the devices that a filter selects, and to a percentage of them."""

import threading
from hashlib import sha256
from typing import Any

import pytest
from nexmdm.alerts import conditions
from nexmdm.devices import filters, groups
from nexmdm.runtime import settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import GroupInUse
from psycopg2.extensions import make_dsn

from local.fcm import FakeFcm
from tests.support.api import call
from tests.support.builds import act, promoted, published
from tests.support.s3 import Bucket

PILOT = {"selector": "stage=pilot"}


@pytest.fixture
def fleet(url: str, db: Database) -> dict[str, str]:
    """{device id: token} of 40 devices, ten of which are pilots."""
    db.execute("""
        INSERT INTO devices (id, alias, token_id, confirmed_at, labels)
        SELECT 'd' || n, 'kiosk-' || n, encode(sha256(convert_to('token-' || n, 'UTF8')), 'hex'), now(),
            CASE WHEN n <= 10 THEN '{"stage": "pilot"}'::jsonb ELSE '{}' END
        FROM generate_series(1, 40) AS n
    """)
    return {f"d{n}": f"token-{n}" for n in range(1, 41)}


def offered(fleet: dict[str, str], version: int) -> set[str]:
    found = set()
    for device_id, token in fleet.items():
        query = {"device_id": "me", "current_version_code": 0, "package_name": "com.nexmdm"}
        answer = call("GET", "/v1/agent/update", query=query, token=token)
        if answer.status == 200 and answer.json["version_code"] == version:
            found.add(device_id)
    return found


def roll_out(build_id: int, percent: int = 100, **body: Any):
    return act(build_id, "rollout", staged_rollout_percent=percent, **body)


PILOTS = {f"d{n}" for n in range(1, 11)}


def test_build_is_offered_to_devices_that_the_filter_selects(bucket: Bucket, fleet: dict[str, str], fake_fcm: FakeFcm):
    promoted(1)
    build_id = promoted(2, percent=0)
    shown = roll_out(build_id, filter=PILOT).json
    assert (shown["rollout_filter"], shown["staged_rollout_percent"]) == (PILOT, 100)
    assert offered(fleet, 2) == PILOTS
    assert offered(fleet, 1) == fleet.keys() - PILOTS
    # The percentage applies to the pilots; without a filter in the call, the filter stays.
    assert roll_out(build_id, 50).json["rollout_filter"] == PILOT
    some = offered(fleet, 2)
    assert 0 < len(some) < 10
    assert some < PILOTS
    # The filter is evaluated when a device asks.
    call("PATCH", "/v1/devices/d40", {"labels": {"stage": "pilot"}})
    roll_out(build_id)
    assert offered(fleet, 2) == PILOTS | {"d40"}
    assert roll_out(build_id, filter={"all": True}).json["rollout_filter"] is None
    assert offered(fleet, 2) == fleet.keys()


def test_unenrolled_phone_gets_the_build_offered_to_all_devices(bucket: Bucket, fleet: dict[str, str]):
    first = promoted(1)
    act(published(2), "promote", filter=PILOT)
    made = call("POST", "/v1/enroll-tokens", {"aliases": ["new"], "scope": "apk_download"}).json["items"][0]
    answer = call("GET", "/v1/apk/download/latest", query={"token": made["token"]})
    assert answer.status == 302
    assert answer.headers["x-apk-sha256"] == call("GET", f"/v1/apk/builds/{first}").json["sha256"]


def test_install_commands_go_only_to_the_pilots(bucket: Bucket, fleet: dict[str, str], fake_fcm: FakeFcm, db: Database):
    build_id = promoted(2, percent=0)
    answer = roll_out(build_id, filter=PILOT, install=True, request_id="r-1")
    assert (answer.status, answer.json["install"]["device_count"]) == (202, 10)
    rows = db.execute("SELECT device_id FROM apk_installations")
    assert {row["device_id"] for row in rows} == PILOTS
    # A repeat sends to no further device, whatever number of devices it expects.
    again = roll_out(build_id, filter=PILOT, install=True, request_id="r-1", expect_target_hash="0" * 64)
    assert (again.status, again.json["install"]["device_count"]) == (202, 10)
    for other in ({"filter": {"all": True}}, {}):
        roll_out(build_id, install=True, request_id="r-1", **other).problem(422)
    assert call("GET", f"/v1/apk/builds/{build_id}").json["rollout_filter"] == PILOT


def test_rollout_is_refused_if_the_preview_has_changed(
    bucket: Bucket, fleet: dict[str, str], fake_fcm: FakeFcm, db: Database
):
    build_id = promoted(2, percent=0)
    seen = call("POST", "/v1/devices/preview", {"filter": PILOT}).json
    assert seen["target_hash"] == sha256("\n".join(sorted(PILOTS)).encode()).hexdigest()
    call("PATCH", "/v1/devices/d40", {"labels": {"stage": "pilot"}})
    for body in ({}, {"install": True, "request_id": "r-1"}):
        problem = roll_out(build_id, filter=PILOT, expect_target_hash=seen["target_hash"], **body).problem(409)
        assert (problem["code"], problem["device_count"]) == ("targets_changed", 11)
    build = call("GET", f"/v1/apk/builds/{build_id}").json
    assert (build["staged_rollout_percent"], build["rollout_filter"]) == (0, None)
    assert db.execute("SELECT count(*) AS n FROM command_batches") == [{"n": 0}]
    assert roll_out(build_id, filter=PILOT, expect_target_hash=problem["target_hash"]).status == 200


def test_each_change_of_the_filter_leaves_an_event(bucket: Bucket, fleet: dict[str, str]):
    build_id = promoted(2)
    roll_out(build_id, filter=PILOT)
    roll_out(build_id, filter=PILOT)
    [event] = call("GET", "/v1/events", query={"action": "build.rollout"}).json["items"]
    assert event["before"] == {"staged_rollout_percent": 100}
    assert event["after"] == {"staged_rollout_percent": 100, "filter": PILOT}


@pytest.mark.parametrize(
    ("filter_", "path"),
    [
        ({}, "$.filter"),
        ({"selector": "=x"}, "$.filter.selector"),
        ({"group": "nowhere"}, "$.filter.group"),
        ({"all": True, "online": True}, "$.filter.all"),
    ],
)
def test_invalid_rollout_filter_changes_nothing(bucket: Bucket, fleet: dict[str, str], filter_: dict, path: str):
    build_id = published(2)
    act(build_id, "promote", filter=filter_).problem(422, path)
    assert call("GET", f"/v1/apk/builds/{build_id}").json["is_current"] is False
    act(build_id, "promote")
    roll_out(build_id, 10, filter=filter_).problem(422, path)
    assert call("GET", f"/v1/apk/builds/{build_id}").json["staged_rollout_percent"] == 100


def test_group_used_by_a_rollout_cannot_be_deleted(bucket: Bucket, fleet: dict[str, str]):
    assert call("PUT", "/v1/groups/pilots", {"filter": PILOT}).status == 200
    first = promoted(1)
    build_id = promoted(2)
    roll_out(build_id, filter={"group": "pilots"})
    assert offered(fleet, 2) == PILOTS
    problem = call("DELETE", "/v1/groups/pilots").problem(409)
    assert problem["used_by"] == [{"kind": "rollout", "name": f"com.nexmdm 2.0 (build {build_id})"}]
    roll_out(build_id, filter={"all": True})
    assert call("DELETE", "/v1/groups/pilots").status == 204
    assert first != build_id


def test_group_cannot_be_deleted_while_a_rollout_begins_to_use_it(bucket: Bucket, url: str, fleet: dict[str, str]):
    call("PUT", "/v1/groups/pilots", {"filter": PILOT})
    build_id = promoted(2)
    first, second = Database(make_dsn(url)), Database(make_dsn(url))
    refused: list[Exception] = []

    def delete() -> None:
        try:
            groups.delete(second, "pilots", Actor("me"))
        except GroupInUse as problem:
            refused.append(problem)

    try:
        with first.transaction() as tx:
            groups.hold(tx, {"group": "pilots"})
            other = threading.Thread(target=delete)
            other.start()
            while not tx.execute("SELECT count(*) AS n FROM pg_locks WHERE NOT granted")[0]["n"]:
                assert other.is_alive(), "the delete did not wait for the rollout"
            tx.execute(
                """UPDATE apk_versions SET rollout_filter = '{"group": "pilots"}' WHERE id = %(id)s""", {"id": build_id}
            )
        other.join()
    finally:
        first.close()
        second.close()
    assert len(refused) == 1
    assert call("GET", "/v1/groups/pilots").status == 200


def test_older_build_with_a_deleted_group_is_not_offered(bucket: Bucket, fleet: dict[str, str]):
    call("PUT", "/v1/groups/pilots", {"filter": PILOT})
    build_id = promoted(1)
    roll_out(build_id, filter={"group": "pilots"})
    promoted(2)
    assert call("DELETE", "/v1/groups/pilots").status == 204
    newest = call("GET", "/v1/apk/builds", query={"current": "true"}).json["items"][0]["build_id"]
    assert act(newest, "rollback", reason="bad").status == 200
    assert offered(fleet, 1) == set()
    # Offering it again requires a filter.
    roll_out(build_id, 100, filter={"all": True})
    assert offered(fleet, 1) == fleet.keys()


def test_only_devices_that_are_offered_a_newer_agent_are_behind(bucket: Bucket, fleet: dict[str, str], db: Database):
    db.execute(
        """INSERT INTO device_last_status (device_id, last_ts, agent_version) SELECT id, now(), '1.0' FROM devices"""
    )
    promoted(1)
    act(published(2), "promote", filter=PILOT)
    db.execute("""UPDATE apk_versions SET promoted_at = now() - interval '9 days',
        audit = jsonb_set(audit, '{-1,at}', to_jsonb(now() - interval '9 days'))""")
    parameters = {**conditions.parameters(settings.load()), "threshold": 24}
    rows = db.execute(conditions.sql(conditions.Condition.AGENT_OUTDATED), parameters)
    assert {row["device_id"] for row in rows} == PILOTS


def test_list_and_function_agree_on_the_stored_filter(bucket: Bucket, fleet: dict[str, str], db: Database):
    build_id = promoted(2)
    roll_out(build_id, filter={"selector": "stage in (pilot, canary)", "alias_prefix": "kiosk-1"})
    [kept] = db.execute("SELECT rollout_filter FROM apk_versions WHERE is_current")
    condition = filters.where(filters.of_stored(db, kept["rollout_filter"]), 600)
    sql = f"SELECT d.id FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id WHERE {condition.sql}"
    assert {row["id"] for row in db.execute(sql, condition.parameters)} == offered(fleet, 2) == {"d1", "d10"}
