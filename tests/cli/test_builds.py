import hashlib
import json
from fnmatch import fnmatchcase

import pytest

from local import template
from tests.cli.relay import relay
from tests.support.api import ROOT

APKS = ROOT / "tests" / "apks"
FINGERPRINTS = json.loads((APKS / "fingerprints.json").read_text())
PLAYER = APKS / "player-190.apk"
PACKAGE = "io.unitynodes.unityapp"


@pytest.fixture
def player(data):
    """The id of a published build."""
    pin(data)
    return str(data("builds", "publish", str(PLAYER))["build_id"])


def pin(data, package=PACKAGE):
    data("builds", "signers", package, "--pin", FINGERPRINTS["rsa"], "--yes")


def test_publish_reads_the_apk_and_may_be_repeated(data, run, monkeypatch):
    monkeypatch.setenv("GITHUB_RUN_ID", "1042")
    pin(data)
    build = data("builds", "publish", str(PLAYER), "--notes", "quick")
    assert (build["state"], build["package_name"], build["version_name"]) == ("published", PACKAGE, "1.9.0")
    assert (build["version_code"], build["build_type"], build["ci_run_id"]) == (190, "release", "1042")
    assert build["signer_fingerprint"] == FINGERPRINTS["rsa"]
    assert data("builds", "publish", str(PLAYER))["build_id"] == build["build_id"]
    assert "published" in run("builds", "show", str(build["build_id"])).stdout


def test_publish_tells_debug_from_release(data):
    assert data("builds", "publish", str(APKS / "agent-2-debug.apk"))["build_type"] == "debug"


def test_given_options_are_declared_and_then_verified(run, data):
    wrong = ("--signer-fingerprint", FINGERPRINTS["other"])
    refused = run("builds", "publish", str(APKS / "agent-2-v2.apk"), *wrong, "--version-code", "77", code=4)
    assert "expected" in refused.stderr
    assert [b["version_code"] for b in data("builds", "list", "--state", "refused")] == [77]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("agent-2-v1.apk", "--signer-fingerprint"),
        ("agent-2-two-signers.apk", "--signer-fingerprint"),
        ("make.sh", "APK"),
    ],
)
def test_missing_facts_of_the_file_name_their_option(run, file, said):
    assert said in run("builds", "publish", str(APKS / file), code=2).stderr


def test_without_pyaxmlparser_every_fact_is_an_option(run, data, monkeypatch):
    pin(data)
    monkeypatch.setitem(__import__("sys").modules, "pyaxmlparser", None)
    assert "nexmdm-cli[apk]" in run("builds", "publish", str(PLAYER), code=2).stderr
    said = ["--package-name", PACKAGE, "--version-name", "1.9.0", "--version-code", "190", "--build-type", "release"]
    said += ["--signer-fingerprint", FINGERPRINTS["rsa"]]
    assert data("builds", "publish", str(PLAYER), *said)["state"] == "published"


def test_rollout_can_be_promoted_paused_resumed_and_rolled_back(data, run, stack, player):
    phones = [stack.enroll(f"roll-{n}") for n in range(3)]
    for phone in phones:
        phone.answer = None
    assert data("builds", "promote", player, "--percent", "0")["is_current"]
    assert data("builds", "rollout", player, "0")["staged_rollout_percent"] == 0
    rolled = data("builds", "rollout", player, "100", "--install", "--request-id", "first-install")
    assert rolled["install"]["request_id"] == "first-install"
    assert rolled["statistics"]["pending"] >= 3
    again = data("builds", "rollout", player, "100", "--install", "--request-id", "first-install")
    assert again["install"]["device_count"] == rolled["install"]["device_count"]
    assert data("builds", "stats", player)["pending"] == rolled["statistics"]["pending"]
    assert "pending" in run("builds", "stats", player).stdout
    assert "100 %" in run("builds", "list", "--current", "--package-name", PACKAGE).stdout
    assert data("builds", "pause", player, "--reason", "it flickers")["paused_reason"] == "it flickers"
    paused = run("status", "--max-silent", "100", code=1)
    assert "it flickers" in paused.stderr
    assert data("builds", "resume", player)["paused_at"] is None
    assert "There is no build before this one" in run("builds", "rollback", player, code=4).stderr


def test_download_verifies_the_received_bytes(data, run, player, operator):
    fetched = data("builds", "download", player)
    assert fetched["file"] == f"{PACKAGE}-190-release.apk"
    assert (operator / fetched["file"]).read_bytes() == PLAYER.read_bytes()
    assert "SHA-256" in run("builds", "download", player, "-o", "here.apk", "--source", "ci").stdout
    assert hashlib.sha256((operator / "here.apk").read_bytes()).hexdigest() == fetched["sha256"]
    assert not list(operator.glob("*.part"))
    assert "There is no build" in run("builds", "download", "9999", code=3).stderr
    for unwritable in ("missing/here.apk", "."):
        assert f"{unwritable} cannot be written" in run("builds", "download", player, "-o", unwritable, code=2).stderr


def test_ci_may_make_every_request_of_publish_and_download(data, stack, operator, monkeypatch):
    pin(data)
    with relay(stack.url, lose=0) as line:
        monkeypatch.setenv("NEXMDM_URL", line.url)
        build = data("builds", "publish", str(PLAYER))
        data("builds", "download", str(build["build_id"]), "--source", "ci")
    policy = template.document()["Resources"]["CiPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    may = [resource["Fn::Sub"].partition("/$default/")[2] for resource in policy["Resource"]]
    assert "POST/v1/apk/builds" in line.requests
    assert [asked for asked in line.requests if not any(fnmatchcase(asked, each) for each in may)] == []


def test_withdraw_accepts_only_declared_builds(run, player):
    assert "only a declared build" in run("builds", "withdraw", player, code=4).stderr


def test_signers_are_pinned_and_listed(data, run, player):
    assert [s["fingerprint"] for s in data("builds", "signers", PACKAGE)] == [FINGERPRINTS["rsa"]]
    both = ("--pin", FINGERPRINTS["rsa"], "--pin", FINGERPRINTS["ec"])
    assert "--yes" in run("builds", "signers", PACKAGE, *both, code=2).stderr
    assert len(data("builds", "signers", PACKAGE, *both, "--yes")) == 2
    assert FINGERPRINTS["ec"] in run("builds", "signers", PACKAGE).stdout
    assert "no signer yet" in run("builds", "signers", "com.nobody.here").stderr


def test_publish_resolves_a_version_name_reference():
    from nexmdm_cli import apk

    nothing = apk.Described(None, None, None, None, None)
    assert apk.describe(APKS / "odd" / "refname.apk", nothing).version_name == "8.4.5"


def test_rollout_to_devices_that_a_filter_selects(data, run, stack, player):
    for alias in ("roll-1", "roll-2"):
        stack.enroll(alias)
    run("devices", "label", "ring=first", "--to", "roll-1")
    run("builds", "promote", player, "--percent", "0")
    filter_ = ("-l", "ring=first")
    assert data("builds", "rollout", player, "100", *filter_, "--dry-run")["sample"] == ["roll-1"]
    assert "Offer build" in run("builds", "rollout", player, "100", *filter_, code=2).stderr
    shown = data("builds", "rollout", player, "100", *filter_, "--yes")
    assert (shown["rollout_filter"], shown["staged_rollout_percent"]) == ({"selector": "ring=first"}, 100)
    assert "--selector ring=first" in run("builds", "show", player).stdout
    # A percentage alone keeps the filter, and the preview says so.
    assert data("builds", "rollout", player, "50", "--dry-run")["device_count"] == 1
    assert data("builds", "rollout", player, "50")["rollout_filter"] == {"selector": "ring=first"}
    assert data("builds", "rollout", player, "50", "--all", "--yes")["rollout_filter"] is None


@pytest.fixture
def current(player, data):
    data("builds", "promote", player, "--percent", "0")
    return player


def test_pilot_devices_are_named_by_alias_and_listed(current, data, run, stack):
    stack.enroll("pilot")
    asked = data("builds", "rollout", current, "--to", "pilot", "--no-wait")["install"]
    assert (asked["device_count"], asked["newer_devices"]) == (1, 0)
    assert "No device is asked: all 1 devices" in run("builds", "rollout", current, "--to", "pilot", "--no-wait").stderr
    assert data("builds", "installations", current)[0]["alias"] == "pilot"
    assert "pilot" in run("builds", "installations", current, "--status", "pending").stdout
    assert "No installation matches" in run("builds", "installations", current, "--status", "failed").stderr
    assert "There is no device" in run("builds", "rollout", current, "--to", "nobody", code=3).stderr


def test_install_command_is_followed_until_it_is_sent(current, run, stack):
    stack.enroll("followed").answer = None
    done = run("builds", "rollout", current, "--to", "followed")
    assert "1 devices: 1 sent" in done.stdout
    assert "No device is asked" not in done.stderr


def test_rollout_accepts_stages_and_a_window(current, data, run):
    stages = ("--stage", "5:24", "--stage", "25:12:90", "--stage", "100")
    plan = data("builds", "rollout", current, *stages)["plan"]
    assert [stage["percent"] for stage in plan["stages"]] == [5, 25, 100]
    assert (plan["stages"][1]["hold_hours"], plan["stages"][1]["min_completed_percent"]) == (12.0, 90)
    assert "5 %, 25 %, 100 %; stage 1 since" in run("builds", "show", current).stdout
    window = data("builds", "rollout", current, *stages, "--window", "fri,sat 22:00-04:00 Europe/Berlin")["plan"][
        "window"
    ]
    assert window == {"timezone": "Europe/Berlin", "days": ["fri", "sat"], "from": "22:00", "to": "04:00"}
    assert "is not a stage" in run("builds", "rollout", current, "--stage", "x", code=2).stderr
    assert "is not a window" in run("builds", "rollout", current, *stages, "--window", "night", code=2).stderr
    assert "Give a percentage, --to or --stage" in run("builds", "rollout", current, code=2).stderr
    assert "No device is asked: no device" in run("builds", "rollout", current, "0", "--install", "--no-wait").stderr


def test_last_version_code_needs_force(run):
    refused = run("builds", "publish", str(PLAYER), "--version-code", str(2**31 - 1), code=4)
    assert "--force" in refused.stderr
