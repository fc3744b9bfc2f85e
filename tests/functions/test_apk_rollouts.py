"""Rollouts: promoting, stages, pausing by hand and automatically, rolling back, and installing by command."""

import pytest
from nexmdm.runtime import settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database

from local.fcm import FakeFcm
from tests.support.api import OPERATOR, call, enroll
from tests.support.builds import act, promoted, published
from tests.support.commands import sweep
from tests.support.races import errors, race
from tests.support.s3 import Bucket


@pytest.fixture
def fleet(url: str, db: Database) -> list[tuple[str, str]]:
    """(device id, device token) of 60 devices."""
    db.execute("""
        INSERT INTO devices (id, alias, token_id, confirmed_at)
        SELECT 'device-' || n, 'kiosk-' || n, encode(sha256(convert_to('token-' || n, 'UTF8')), 'hex'), now()
        FROM generate_series(1, 60) AS n
    """)
    return [(f"device-{n}", f"token-{n}") for n in range(1, 61)]


def offered(token: str, have: int = 0) -> int | None:
    """The newer version code that a device is offered, given the one it has."""
    query = {"device_id": "me", "current_version_code": have, "package_name": "com.nexmdm"}
    answer = call("GET", "/v1/agent/update", query=query, token=token)
    assert answer.status in (200, 304), answer.text
    return answer.json["version_code"] if answer.status == 200 else None


def those_offered(fleet: list[tuple[str, str]], version: int) -> set[str]:
    return {device_id for device_id, token in fleet if offered(token) == version}


def roll_out(build_id: int, percent: int, **body):
    return act(build_id, "rollout", staged_rollout_percent=percent, **body)


def events(build_id: int) -> list[str]:
    return [entry["event"] for entry in call("GET", f"/v1/apk/builds/{build_id}").json["audit"]]


def test_higher_percentage_only_adds_devices(bucket: Bucket, fleet):
    promoted(1)
    build_id = promoted(2, percent=0)
    before: set[str] = set()
    sizes = []
    for percent in (0, 10, 30, 50, 80, 100):
        assert roll_out(build_id, percent).json["staged_rollout_percent"] == percent
        now = those_offered(fleet, 2)
        assert before <= now
        before = now
        sizes.append(len(now))
    assert sizes[0] == 0
    assert 1 <= sizes[1] <= 15
    assert 18 <= sizes[3] <= 42
    assert sizes[5] == 60


def test_devices_outside_the_cohort_are_offered_the_previous_build(bucket: Bucket, fleet):
    promoted(1)
    promoted(2, percent=50)
    promoted(3, percent=20)
    got = [offered(token) for _, token in fleet]
    assert set(got) == {1, 2, 3}
    assert {offered(token, have=1) for _, token in fleet} == {None, 2, 3}


def test_cohorts_of_two_builds_differ(bucket: Bucket, fleet):
    promoted(1)
    promoted(2, percent=30)
    of_two = those_offered(fleet, 2)
    promoted(3, percent=30)
    assert those_offered(fleet, 3) != of_two


def test_promoted_build_replaces_the_current_one(bucket: Bucket):
    first = promoted(1)
    second = published(2)
    answer = act(second, "promote", staged_rollout_percent=10)
    assert answer.json["is_current"] is True
    assert answer.json["staged_rollout_percent"] == 10
    assert (answer.json["promoted_by"], answer.json["replaces_id"]) == (OPERATOR, first)
    assert call("GET", f"/v1/apk/builds/{first}").json["is_current"] is False
    # A repeated promotion changes neither the current build nor the percentage.
    again = act(second, "promote")
    assert again.json == answer.json


def test_older_build_cannot_be_promoted(bucket: Bucket):
    first = published(1)
    promoted(2)
    document = act(first, "promote").problem(409)
    assert "version_code: 1 is not above 2" in document["detail"]


@pytest.mark.parametrize("what", ["rollout", "pause", "resume", "rollback"])
def test_only_the_current_build_can_be_rolled_out(bucket: Bucket, what: str):
    build_id = published(1)
    body = {"staged_rollout_percent": 10} if what == "rollout" else {}
    assert "not current" in act(build_id, what, **body).problem(409)["detail"]


@pytest.mark.parametrize("percent", [-1, 101, "ten", None])
def test_invalid_percentage_is_refused(bucket: Bucket, percent):
    build_id = promoted(1)
    roll_out(build_id, percent).problem(422, "$.staged_rollout_percent")
    act(build_id, "promote", staged_rollout_percent=percent).problem(422)


def test_invalid_idempotency_key_is_refused_even_if_it_is_not_needed(bucket: Bucket):
    path = f"/v1/apk/builds/{promoted()}/rollout"
    for body in ({"staged_rollout_percent": 50}, {"staged_rollout_percent": 50, "install": True}):
        answer = call("POST", path, body, headers={"Idempotency-Key": "a key"})
        answer.problem(422, "header.Idempotency-Key")


def test_rollout_can_be_paused_and_resumed(bucket: Bucket, fleet):
    promoted(1)
    build_id = promoted(2)
    answer = act(build_id, "pause", reason="black screens in Berlin")
    assert answer.json["paused_reason"] == "black screens in Berlin"
    assert act(build_id, "pause", reason="again").json["paused_reason"] == "black screens in Berlin"
    assert those_offered(fleet[:5], 2) == set()
    assert those_offered(fleet[:5], 1) == {device_id for device_id, _ in fleet[:5]}
    headers = {"X-Device-Token": fleet[0][1]}
    assert "paused" in call("GET", f"/v1/apk/download/{build_id}", headers=headers).problem(404)["detail"]

    assert act(build_id, "resume").json["paused_at"] is None
    assert act(build_id, "resume").status == 200
    assert those_offered(fleet[:5], 2) == {device_id for device_id, _ in fleet[:5]}
    assert events(build_id) == ["publish", "promote", "pause", "resume"]


def test_rollback_offers_the_previous_build(bucket: Bucket, fleet):
    first, second = promoted(1), promoted(2)
    answer = act(second, "rollback", reason="it does not start")
    assert answer.json["is_current"] is False
    assert call("GET", f"/v1/apk/builds/{first}").json["is_current"] is True
    assert those_offered(fleet[:5], 1) == {device_id for device_id, _ in fleet[:5]}
    headers = {"X-Device-Token": fleet[0][1]}
    call("GET", f"/v1/apk/download/{second}", headers=headers).problem(404)

    # A repeated rollback does not go back one build further.
    assert act(second, "rollback").status == 200
    assert call("GET", f"/v1/apk/builds/{first}").json["is_current"] is True
    assert "Pause it instead" in act(first, "rollback").problem(409)["detail"]

    third = promoted(3)
    assert call("GET", f"/v1/apk/builds/{third}").json["replaces_id"] == first
    assert act(third, "rollback").json["is_current"] is False
    assert act(second, "promote").json["paused_at"] is None
    assert offered(fleet[0][1]) == 2
    assert events(second) == ["publish", "promote", "rollback", "promote"]


def test_concurrent_promotions_leave_one_current_build(bucket: Bucket, url: str, db: Database):
    from nexmdm.builds import publishing, rollouts

    everyone = rollouts.Audience(percent=100, interval_seconds=600)

    ids = [published(n) for n in (1, 2, 3)]

    def promote(build_id: int):
        return lambda own: rollouts.promote(own, publishing.find(own, str(build_id)), everyone, Actor(OPERATOR))

    results = race(url, *[promote(build_id) for build_id in ids for _ in range(2)])
    assert {type(error).__name__ for error in errors(results)} <= {"Conflict"}
    [current] = db.execute("SELECT version_code, replaces_id FROM apk_versions WHERE is_current")
    assert current["version_code"] == 3


# --- install_apk


def test_install_commands_go_only_to_the_cohort(bucket: Bucket, fake_fcm: FakeFcm, fleet, db: Database):
    db.execute("UPDATE devices SET fcm_token = 'fcm:' || id")
    build_id = promoted(2, percent=0)
    answer = roll_out(build_id, 30, install=True)
    assert answer.status == 202, answer.text
    cohort = those_offered(fleet, 2)
    install = answer.json["install"]
    assert install["device_count"] == len(cohort)
    assert install["states"] == {"accepted": len(cohort)}

    assert sweep()["sent"] == len(cohort)
    messages = {post.data["device_id"]: post.data for post in fake_fcm.requests()}
    assert set(messages) == cohort
    [row] = db.execute("SELECT file_size FROM apk_versions")
    for device_id, data in messages.items():
        [installation] = db.execute("SELECT * FROM apk_installations WHERE device_id = %(id)s", {"id": device_id})
        assert data["action"] == "install_apk"
        assert data["installation_id"] == str(installation["id"])
        assert (
            data["download_url"] == f"https://api.test/v1/apk/download/{build_id}?installation_id={installation['id']}"
        )
        assert (data["package_name"], data["version_name"], data["version_code"]) == ("com.nexmdm", "2.0", "2")
        assert (data["apk_id"], data["file_size"]) == (str(build_id), str(row["file_size"]))
        assert installation["status"] == "pending"
        assert installation["request_id"] == data["request_id"] == f"{install['request_id']}:{device_id}"


def test_higher_percentage_sends_install_commands_only_to_added_devices(
    bucket: Bucket, fake_fcm: FakeFcm, fleet, db: Database
):
    build_id = promoted(2, percent=0)
    first = roll_out(build_id, 30, install=True).json["install"]["device_count"]
    second = roll_out(build_id, 100, install=True).json["install"]["device_count"]
    assert first + second == 60
    repeated = roll_out(build_id, 100, install=True)
    assert (repeated.status, repeated.json["install"]["device_count"]) == (202, 0)
    assert db.execute("SELECT count(*) AS n, count(DISTINCT device_id) AS d FROM apk_installations") == [
        {"n": 60, "d": 60}
    ]


def test_devices_that_failed_or_did_not_answer_get_another_install_command(
    bucket: Bucket, fake_fcm: FakeFcm, fleet, db: Database
):
    build_id = promoted(2)
    roll_out(build_id, 100, install=True)
    number = "split_part(device_id, '-', 2)::integer"
    db.execute(f"UPDATE apk_installations SET status = 'completed' WHERE {number} > 10")
    db.execute("UPDATE apk_installations SET status = 'failed' WHERE device_id = 'device-1'")
    db.execute(f"UPDATE apk_installations SET initiated_at = now() - interval '2 days' WHERE {number} IN (2, 3)")
    assert roll_out(build_id, 100, install=True).json["install"]["device_count"] == 3
    statistics = call("GET", f"/v1/apk/builds/{build_id}").json["statistics"]
    assert (statistics["failed"], statistics["unknown"], statistics["completed"]) == (1, 2, 50)
    assert statistics["pending"] == 7 + 3


def test_repeated_idempotency_key_sends_once(bucket: Bucket, fake_fcm: FakeFcm, fleet, db: Database):
    build_id = promoted(2, percent=0)
    headers = {"Idempotency-Key": "release-2"}
    body = {"staged_rollout_percent": 30, "install": True}
    path = f"/v1/apk/builds/{build_id}/rollout"
    first = call("POST", path, body, headers=headers)
    again = call("POST", path, {**body, "request_id": "release-2"})
    assert again.json["install"] == first.json["install"]
    assert first.json["install"]["request_id"] == "release-2"
    call("POST", path, {**body, "staged_rollout_percent": 40}, headers=headers).problem(422)
    call("POST", path, {**body, "request_id": "other"}, headers=headers).problem(422, "$.request_id")
    [stored] = db.execute("SELECT staged_rollout_percent FROM apk_versions")
    assert stored["staged_rollout_percent"] == 30, "the refused call changed the rollout"


def test_concurrent_rollouts_send_each_device_one_install_command(bucket: Bucket, url: str, fleet, db: Database):
    from nexmdm.builds import publishing, rollouts

    everyone = rollouts.Audience(percent=100, interval_seconds=600)

    build_id = str(promoted(2))

    def install(n: int):
        return lambda own: rollouts.install(
            own,
            publishing.find(own, build_id),
            everyone,
            Actor(OPERATOR),
            rollouts.Install(request_id=f"r-{n}", base_url="https://api.test", agent_package="com.nexmdm"),
        )

    assert errors(race(url, *[install(n) for n in range(6)])) == []
    assert db.execute("SELECT count(*) AS n FROM fcm_dispatches") == [{"n": 60}]
    assert db.execute("SELECT count(*) AS n FROM apk_installations") == [{"n": 60}]


def test_paused_rollout_sends_nothing(bucket: Bucket, fleet, db: Database):
    build_id = promoted(2)
    act(build_id, "pause")
    roll_out(build_id, 100, install=True).problem(409)
    assert db.execute("SELECT count(*) AS n FROM apk_installations") == [{"n": 0}]


@pytest.fixture
def asked(bucket: Bucket, fleet, db: Database) -> int:
    """A build that 60 reachable devices were asked to install, by commands that are not sent yet."""
    promoted(1)
    build_id = promoted(2)
    db.execute("UPDATE devices SET fcm_token = 'fcm:' || id")
    roll_out(build_id, 100, install=True, request_id="wave")
    return build_id


def pending(token: str) -> list[dict[str, str]]:
    return call("POST", "/v1/heartbeat", {"battery_pct": 50}, token=token).json["pending_commands"]


def test_pause_holds_the_commands_that_are_not_sent_yet(asked, db: Database, fake_fcm: FakeFcm):
    assert len(pending("token-1")) == 1
    act(asked, "pause", reason="it does not start")
    assert sweep()["sent"] == 0
    assert pending("token-1") == []
    act(asked, "resume")
    assert len(pending("token-1")) == 1
    assert sweep()["sent"] == 60
    assert len(fake_fcm.deliveries()) == 60


def test_pause_holds_only_the_commands_of_its_build(asked, db: Database, fake_fcm: FakeFcm):
    act(asked, "pause", reason="it does not start")
    device = db.execute("SELECT id FROM devices ORDER BY id LIMIT 1")[0]["id"]
    body = {"download_url": "https://example.com/a.apk", "installation_id": 1}
    for request_id, of in (("other", {"apk_id": asked - 1}), ("none", {})):
        command = {"action": "install_apk", "request_id": request_id, "params": {**body, **of}}
        assert call("POST", f"/v1/devices/{device}/commands", command).json["state"] == "sent"


def test_repeats_and_resends_wait_for_a_paused_build_too(asked, db: Database, fake_fcm: FakeFcm):
    assert sweep()["sent"] == 60
    db.execute("""
        UPDATE fcm_dispatches SET delivery = 'until_answered', fcm_expires_at = now() - interval '1 hour',
            secrets = NULL
    """)
    db.execute("""
        INSERT INTO device_last_status (device_id, last_ts, last_seen_at)
        SELECT id, now() - interval '2 minutes', now() - interval '2 minutes' FROM devices
    """)
    act(asked, "pause", reason="it does not start")
    assert sweep()["sent"] == 0
    problem = call("POST", "/v1/commands/wave:device-1/resend", {"reason": "again"}).problem(409)
    assert problem["detail"] == f"Build {asked}, which it installs, is paused. Resume its rollout first."
    assert len(fake_fcm.deliveries()) == 60
    act(asked, "resume")
    assert sweep()["sent"] == 60


def test_rollback_cancels_the_commands_that_are_not_sent_yet(asked, db: Database, fake_fcm: FakeFcm):
    act(asked, "rollback", reason="it does not start")
    assert db.execute("SELECT state, count(*) AS n FROM fcm_dispatches GROUP BY 1") == [{"state": "cancelled", "n": 60}]
    shown = call("GET", "/v1/commands/wave:device-1").json
    assert (shown["audit"][-1]["event"], shown["audit"][-1]["reason"]) == ("cancel", "the build was rolled back")
    [event] = db.execute("SELECT after FROM operator_events WHERE action = 'build.rollback'")
    assert event["after"]["cancelled_commands"] == 60
    assert sweep()["sent"] == 0


def test_device_whose_command_was_never_delivered_is_asked_again(asked, db: Database):
    fake = "UPDATE fcm_dispatches SET state = %(state)s, refused = 1, attempts = 1 WHERE device_id = %(id)s"
    db.execute(fake, {"state": "failed", "id": "device-1"})
    db.execute(fake, {"state": "expired", "id": "device-2"})
    assert call("POST", "/v1/commands/wave:device-3/cancel").json["state"] == "cancelled"
    assert roll_out(asked, 100, install=True, request_id="again").json["install"]["device_count"] == 3
    rows = db.execute("SELECT device_id FROM apk_installations WHERE status = 'pending' AND request_id ^@ 'again'")
    assert {row["device_id"] for row in rows} == {"device-1", "device-2", "device-3"}


def test_build_can_be_rolled_out_again_after_its_rollback(asked, db: Database, fake_fcm: FakeFcm):
    act(asked, "rollback", reason="a wrong setting on the server")
    assert act(asked, "promote").status == 200
    assert roll_out(asked, 100, install=True, request_id="again").json["install"]["device_count"] == 60
    assert sweep()["sent"] == 60


# --- what devices report


@pytest.fixture
def installing(bucket: Bucket, fleet, db: Database) -> tuple[int, dict[str, int]]:
    """A build that 60 devices were told to install: its id, and {device token: installation id}."""
    promoted(1)
    build_id = promoted(2)
    roll_out(build_id, 100, install=True)
    rows = db.execute("SELECT id, device_id FROM apk_installations")
    return build_id, {row["device_id"].replace("device", "token"): row["id"] for row in rows}


def report(token: str, installation_id: object, status: str, **body):
    body = {"installation_id": installation_id, "status": status, **body}
    return call("POST", "/v1/apk/installation/update", body, headers={"X-Device-Token": token})


def test_progress_reports_of_the_agent_are_stored(installing, db: Database):
    build_id, asked = installing
    token, installation_id = "token-7", asked["token-7"]
    answer = report(token, installation_id, "downloading", download_progress=25.0)
    assert answer.json == {"status": "ok", "installation_id": installation_id, "new_status": "downloading"}
    assert report(token, str(installation_id), "downloading", download_progress=75).status == 200
    report(token, installation_id, "downloading", download_progress=50)  # overtaken by a later report
    [row] = db.execute("SELECT * FROM apk_installations WHERE id = %(id)s", {"id": installation_id})
    assert (row["status"], row["download_progress"]) == ("downloading", 75)

    report(token, installation_id, "installing")
    assert report(token, installation_id, "downloading").json["new_status"] == "installing"
    assert report(token, installation_id, "completed").json["new_status"] == "completed"
    for late in ("downloading", "failed", "completed"):
        assert report(token, installation_id, late).json["new_status"] == "completed"
    [row] = db.execute("SELECT * FROM apk_installations WHERE id = %(id)s", {"id": installation_id})
    assert (row["status"], row["download_progress"]) == ("completed", 100)
    assert row["completed_at"] is not None
    statistics = call("GET", f"/v1/apk/builds/{build_id}").json["statistics"]
    assert (statistics["completed"], statistics["pending"]) == (1, 59)
    [counted] = db.execute("SELECT rollout_completed FROM apk_versions WHERE is_current")
    assert counted["rollout_completed"] == 1


def test_finished_installation_settles_its_command(installing, db: Database):
    _, asked = installing
    find = "SELECT state, result, completed_at, result_message FROM fcm_dispatches WHERE device_id = 'device-3'"
    report("token-3", asked["token-3"], "downloading")
    assert db.execute(find)[0]["completed_at"] is None
    report("token-3", asked["token-3"], "failed", error_message="INSTALL_FAILED_INSUFFICIENT_STORAGE")
    [row] = db.execute(find)
    assert (row["state"], row["result"]) == ("sent", "failed")
    assert row["result_message"] == "INSTALL_FAILED_INSUFFICIENT_STORAGE"


def test_device_reports_only_its_own_installation(installing):
    _, asked = installing
    report("token-1", asked["token-2"], "completed").problem(404)
    report("token-1", 2**31 - 1, "completed").problem(404)
    report("nobody", asked["token-2"], "completed").problem(401)
    _, other = enroll("other")
    report(other, asked["token-2"], "completed").problem(404)
    for wrong in (
        {"status": "pending"},
        {"installation_id": 0},
        {"installation_id": 2**31},
    ):
        call(
            "POST",
            "/v1/apk/installation/update",
            {"installation_id": 1, "status": "failed", **wrong},
            headers={"X-Device-Token": "token-1"},
        ).problem(422)


@pytest.mark.parametrize("progress", [-1, 101, 250])
def test_progress_out_of_range_is_stored_as_unknown(installing, db: Database, progress: int):
    _, asked = installing
    assert report("token-1", asked["token-1"], "downloading", download_progress=progress).status == 200
    [row] = db.execute("SELECT download_progress FROM apk_installations WHERE device_id = 'device-1'")
    assert row["download_progress"] is None


def test_rollout_pauses_itself_above_20_percent_failures(installing, db: Database, fleet, capsys):
    build_id, asked = installing
    # Of 20 finished installations 4 failed, including the last: exactly a fifth, which is not too many.
    outcomes = ["completed"] * 16 + ["failed"] * 4
    for (_, token), outcome in zip(fleet, outcomes, strict=False):
        report(token, asked[token], "installing")
        report(token, asked[token], outcome)
    assert call("GET", f"/v1/apk/builds/{build_id}").json["paused_at"] is None
    capsys.readouterr()

    report(fleet[20][1], asked[fleet[20][1]], "failed")
    build = call("GET", f"/v1/apk/builds/{build_id}").json
    assert build["paused_reason"] == "5 of 21 installations failed"
    assert '"RolloutPaused"' in capsys.readouterr().out
    assert offered(fleet[30][1]) == 1
    assert build["audit"][-1]["by"] == "failed installations"

    # After a resume, failures are counted anew.
    act(build_id, "resume")
    report(fleet[21][1], asked[fleet[21][1]], "failed")
    assert call("GET", f"/v1/apk/builds/{build_id}").json["paused_at"] is None


def test_rollout_is_not_paused_below_20_finished_installations(installing, fleet):
    build_id, asked = installing
    for _, token in fleet[:19]:
        report(token, asked[token], "failed")
    assert call("GET", f"/v1/apk/builds/{build_id}").json["paused_at"] is None
    report(fleet[19][1], asked[fleet[19][1]], "failed")
    assert call("GET", f"/v1/apk/builds/{build_id}").json["paused_reason"] == "20 of 20 installations failed"


def test_both_pause_limits_are_settings(installing, fleet, monkeypatch: pytest.MonkeyPatch):
    build_id, asked = installing
    monkeypatch.setenv("ROLLOUT_PAUSE_INSTALLATIONS", "4")
    monkeypatch.setenv("ROLLOUT_PAUSE_FAILED_PERCENT", "50")
    settings.load.cache_clear()
    for (_, token), outcome in zip(fleet, ["completed", "completed", "failed", "failed"], strict=False):
        report(token, asked[token], "installing")
        report(token, asked[token], outcome)
    assert call("GET", f"/v1/apk/builds/{build_id}").json["paused_at"] is None
    report(fleet[4][1], asked[fleet[4][1]], "failed")
    assert call("GET", f"/v1/apk/builds/{build_id}").json["paused_at"] is not None


def test_concurrent_failures_are_all_counted(installing, url: str, fleet, db: Database):
    from nexmdm.builds import installations

    build_id, asked = installing
    config = settings.load()

    def fail(token: str):
        progress = installations.Progress(asked[token], "failed")
        return lambda own: installations.report(own, token, progress, config)

    # Each of the 20 failures is reported twice at the same time.
    assert errors(race(url, *[fail(token) for _, token in fleet[:20] for _ in range(2)])) == []
    [row] = db.execute("SELECT rollout_failed, paused_reason FROM apk_versions WHERE id = %(id)s", {"id": build_id})
    assert row == {"rollout_failed": 20, "paused_reason": "20 of 20 installations failed"}
