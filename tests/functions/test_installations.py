"""Installation results: a device's report is a claim, and the version that it reports afterwards decides."""

from typing import Any

import pytest
from nexmdm.builds import installations
from nexmdm.runtime import actor, settings
from nexmdm.runtime.database import Database

from tests.support.api import Answer, call, enroll
from tests.support.builds import act, offer, pin, promoted, sample
from tests.support.s3 import Bucket

PLAYER = "io.unitynodes.unityapp"


class Asked:
    """A device that was told to install a build."""

    def __init__(self, db: Database, build_id: int, alias: str = "lobby") -> None:
        self.db, self.build_id = db, build_id
        self.id, self.token = enroll(alias)
        answer = act(build_id, "rollout", device_ids=[self.id])
        assert answer.json["install"]["device_count"] == 1, answer.text
        [row] = db.execute("SELECT id FROM apk_installations WHERE device_id = %(id)s", {"id": self.id})
        self.installation = row["id"]

    def report(self, status: str, **body: Any) -> str:
        body = {"installation_id": self.installation, "status": status, **body}
        answer = call("POST", "/v1/apk/installation/update", body, headers={"X-Device-Token": self.token})
        assert answer.status == 200, answer.text
        return answer.json["new_status"]

    def runs(self, version_code: int | None, package: str = PLAYER) -> None:
        """Set the version of a package in the device's last heartbeat; None means that it is not installed."""
        self.db.execute(
            "INSERT INTO device_apps (device_id, package, version_code, installed)"
            " VALUES (%(id)s, %(package)s, %(code)s, %(code)s IS NOT NULL)"
            " ON CONFLICT (device_id, package) DO UPDATE SET"
            " version_code = excluded.version_code, installed = excluded.installed",
            {"id": self.id, "package": package, "code": version_code},
        )

    def command(self) -> dict[str, Any]:
        [row] = self.db.execute(
            "SELECT completed_at IS NOT NULL AS settled, result FROM fcm_dispatches WHERE device_id = %(id)s",
            {"id": self.id},
        )
        return row

    def later(self, hours: int) -> None:
        """Let `hours` pass for the installation by moving its times into the past."""
        self.db.execute(
            "UPDATE apk_installations SET initiated_at = initiated_at - make_interval(hours => %(hours)s),"
            " installing_at = installing_at - make_interval(hours => %(hours)s),"
            " claimed_at = claimed_at - make_interval(hours => %(hours)s)",
            {"hours": hours},
        )

    def counts(self) -> tuple[int, int]:
        [row] = self.db.execute(
            "SELECT rollout_completed, rollout_failed FROM apk_versions WHERE id = %(id)s", {"id": self.build_id}
        )
        return row["rollout_completed"], row["rollout_failed"]

    def status(self) -> str:
        return listed(self.build_id).json["items"][0]["status"]


def listed(build_id: int, **query: Any) -> Answer:
    return call("GET", f"/v1/apk/builds/{build_id}/installations", query=query)


def settle(db: Database) -> int:
    return installations.settle(db, settings.load(), actor.system("sweep"))


@pytest.fixture
def player(bucket: Bucket) -> int:
    """The id of a current build of the player that is not offered to any device yet."""
    pin(PLAYER)
    build_id = offer(sample("player-190"), 190, package_name=PLAYER, version_name="1.9.0").json["build_id"]
    act(build_id, "promote", staged_rollout_percent=0)
    return build_id


@pytest.fixture
def device(player: int, db: Database) -> Asked:
    return Asked(db, player)


def test_completed_before_installing_is_only_a_claim(device: Asked, db: Database):
    """The agent in the field reports `completed` in the middle of the download."""
    assert device.report("completed") == "pending"
    assert device.report("downloading") == "downloading"
    assert device.report("completed") == "downloading"
    assert (device.command(), device.counts()) == ({"settled": False, "result": None}, (0, 0))
    [shown] = listed(device.build_id).json["items"]
    assert shown["claimed_at"] is not None
    assert (shown["status"], shown["ended_at"]) == ("downloading", None)
    assert settle(db) == 0


@pytest.mark.parametrize("truth", ["installing", "failed"])
def test_reported_version_decides_over_a_claim(device: Asked, truth: str):
    device.report("completed")
    assert device.report(truth, error_message="no space") == truth
    assert device.counts() == (0, int(truth == "failed"))


def test_completed_after_installing_counts_if_no_report_names_the_package(device: Asked):
    device.report("installing")
    assert device.report("completed") == "completed"
    assert (device.command(), device.counts()) == ({"settled": True, "result": "completed"}, (1, 0))
    assert device.report("failed") == "completed", "a finished installation changed"


def test_reported_package_is_completed_only_by_its_version(device: Asked, db: Database):
    device.runs(189)
    device.report("installing")
    assert device.report("completed") == "installing"
    assert settle(db) == 0
    assert device.counts() == (0, 0)
    device.runs(190)
    assert settle(db) == 1
    assert (device.status(), device.counts()) == ("completed", (1, 0))
    assert device.command() == {"settled": True, "result": "completed"}
    assert settle(db) == 0


def test_reported_version_completes_an_installation_without_a_report(device: Asked, db: Database):
    """Reports are sent once and can get lost."""
    device.runs(190)
    assert settle(db) == 1
    assert device.status() == "completed"


def test_installation_of_the_agent_is_completed_by_its_version_name(bucket: Bucket, db: Database):
    promoted(1)
    device = Asked(db, promoted(2, percent=0))
    for version, status in (("1.0", "downloading"), ("2.0", "completed")):
        body = {"device_id": device.id, "app_version": version}
        assert call("POST", "/v1/heartbeat", body, token=device.token).status == 200
        device.report("downloading")
        assert device.report("completed") == status


def test_unfinished_installation_is_unknown_after_a_day(device: Asked, db: Database):
    device.report("installing")
    device.later(23)
    assert settle(db) == 0
    device.later(2)
    assert settle(db) == 1
    assert (device.status(), device.counts()) == ("unknown", (0, 0))
    assert call("GET", f"/v1/apk/builds/{device.build_id}").json["statistics"]["unknown"] == 1
    event = db.execute("SELECT actor, action, object, after FROM operator_events ORDER BY event_id DESC LIMIT 1")[0]
    assert event["action"] == "build.installations_unknown"
    assert (event["actor"], event["after"]) == ("system:sweep", {"unknown": 1})
    assert settle(db) == 0
    device.runs(190)
    assert settle(db) == 1, "a late version report must settle the installation"
    assert (device.status(), device.counts()) == ("completed", (1, 0))


def test_late_report_reopens_an_unknown_installation(device: Asked, db: Database):
    device.later(25)
    assert settle(db) == 1
    assert device.report("installing") == "installing"
    assert settle(db) == 0
    assert device.report("failed", error_message="INSTALL_FAILED_INSUFFICIENT_STORAGE") == "failed"
    assert device.counts() == (0, 1)


def test_installation_timeout_is_a_setting(device: Asked, db: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INSTALLATION_TIMEOUT_SECONDS", "3600")
    settings.load.cache_clear()
    device.later(2)
    assert settle(db) == 1


def test_installation_list_names_failed_devices_and_reasons(player: int, db: Database):
    devices = [Asked(db, player, f"kiosk-{number}") for number in range(3)]
    devices[1].report("failed", error_message="INSTALL_FAILED_VERSION_DOWNGRADE")
    [failed] = listed(player, status="failed").json["items"]
    assert (failed["alias"], failed["error"]) == ("kiosk-1", "INSTALL_FAILED_VERSION_DOWNGRADE")
    assert failed["ended_at"] is not None
    first = listed(player, limit=2).json
    second = listed(player, limit=2, cursor=first["next_cursor"]).json
    assert [item["alias"] for item in first["items"] + second["items"]] == ["kiosk-2", "kiosk-1", "kiosk-0"]
    assert second["next_cursor"] is None
    listed(999).problem(404)
    listed(player, status="lost").problem(422)
    listed(player, cursor="WzBd").problem(422)


# --- which devices are told to install


def test_named_devices_are_a_pilot_besides_the_percentage(player: int, db: Database):
    ids = [enroll(f"kiosk-{number}")[0] for number in range(4)]
    answer = act(player, "rollout", device_ids=ids[:2])
    assert answer.status == 202
    assert answer.json["staged_rollout_percent"] == 0
    assert (answer.json["install"]["device_count"], answer.json["install"]["cohort_devices"]) == (2, 2)
    act(player, "rollout", device_ids=[ids[3], "nobody"]).problem(404)
    assert db.execute("SELECT device_id FROM apk_installations ORDER BY id") == [{"device_id": id_} for id_ in ids[:2]]
    again = act(player, "rollout", device_ids=ids[:3]).json["install"]
    assert (again["device_count"], again["cohort_devices"]) == (1, 3)
    act(player, "rollout", device_ids=ids, staged_rollout_percent=10).problem(422)
    act(player, "rollout", device_ids=[]).problem(422)


def test_device_with_a_newer_version_is_skipped_and_counted(player: int, db: Database):
    devices = [Asked(db, player, f"kiosk-{number}") for number in range(3)]
    db.execute("UPDATE apk_installations SET status = 'failed'")
    for device, code in zip(devices, (191, 190, 189), strict=True):
        device.runs(code)
    asked = act(player, "rollout", staged_rollout_percent=100, install=True).json["install"]
    assert (asked["device_count"], asked["cohort_devices"], asked["newer_devices"]) == (1, 3, 1)


def test_small_percentage_of_few_devices_may_select_none_and_says_so(player: int, db: Database):
    for number in range(3):
        enroll(f"kiosk-{number}")
    # A device may be in the first cohort bucket by chance.
    db.execute("UPDATE devices SET deleted_at = now() WHERE rollout_bucket_v1(%(build)s, id) < 1", {"build": player})
    asked = act(player, "rollout", staged_rollout_percent=1, install=True).json["install"]
    assert (asked["device_count"], asked["cohort_devices"], asked["request_id"]) == (0, 0, None)


def test_device_that_no_longer_runs_the_build_is_not_completed(device: Asked, db: Database):
    device.runs(190)
    settle(db)
    statistics = call("GET", f"/v1/apk/builds/{device.build_id}").json["statistics"]
    assert (statistics["completed"], statistics["replaced"]) == (1, 0)
    for code in (191, None):
        device.runs(code)
        statistics = call("GET", f"/v1/apk/builds/{device.build_id}").json["statistics"]
        assert (statistics["completed"], statistics["replaced"]) == (0, 1)


def test_reenrolled_phone_gets_another_install_command(device: Asked, db: Database):
    device.report("installing")
    device.report("completed")
    assert act(device.build_id, "rollout", device_ids=[device.id]).json["install"]["device_count"] == 0
    db.execute("UPDATE devices SET taken_over_at = now()")
    assert call("GET", f"/v1/apk/builds/{device.build_id}").json["statistics"]["completed"] == 0
    assert act(device.build_id, "rollout", device_ids=[device.id]).json["install"]["device_count"] == 1


@pytest.mark.parametrize("outcome", ["failed", "completed"])
def test_report_on_an_installation_from_before_a_take_over_is_not_counted(
    device: Asked, db: Database, monkeypatch: pytest.MonkeyPatch, outcome: str
):
    monkeypatch.setenv("ROLLOUT_PAUSE_INSTALLATIONS", "1")
    monkeypatch.setenv("ROLLOUT_PAUSE_FAILED_PERCENT", "0")
    settings.load.cache_clear()
    # The alias is enrolled again. The agent keeps its queue and sends it with the new token.
    device_id, device.token = enroll("lobby")
    assert device_id == device.id
    assert device.report("installing") == "installing"
    assert device.report(outcome) == outcome
    shown = call("GET", f"/v1/apk/builds/{device.build_id}").json
    assert (device.counts(), shown["paused_at"], shown["statistics"][outcome]) == ((0, 0), None, 0)


def test_report_on_an_installation_from_after_a_take_over_counts(
    device: Asked, db: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ROLLOUT_PAUSE_INSTALLATIONS", "1")
    monkeypatch.setenv("ROLLOUT_PAUSE_FAILED_PERCENT", "0")
    settings.load.cache_clear()
    _, device.token = enroll("lobby")
    assert act(device.build_id, "rollout", device_ids=[device.id]).json["install"]["device_count"] == 1
    [row] = db.execute("SELECT max(id) AS id FROM apk_installations")
    device.installation = row["id"]
    device.report("failed")
    shown = call("GET", f"/v1/apk/builds/{device.build_id}").json
    assert (device.counts(), shown["statistics"]["failed"]) == ((0, 1), 1)
    assert shown["paused_at"] is not None


def test_rollback_names_devices_that_run_a_newer_version(bucket: Bucket, db: Database):
    promoted(1)
    device = Asked(db, promoted(2, percent=0))
    call("POST", "/v1/heartbeat", {"device_id": device.id, "app_version": "2.0"}, token=device.token)
    assert act(device.build_id, "rollback", reason="it hangs").json["warnings"] == [
        "1 device runs version code 2 or a newer one. Android rejects a lower versionCode: to return to the"
        " earlier code, publish it under a version code above 2."
    ]
