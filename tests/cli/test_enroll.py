"""Enrollment codes, which a decoder reads back as a phone would."""

import base64
import hashlib
import json
import shlex
import subprocess
from pathlib import Path

import httpx
import pytest
from nexmdm_cli import qr
from nexmdm_cli.output import Output
from PIL import Image

from tests.support import adb
from tests.support.api import ROOT
from tests.support.codes import decoded

APKS = ROOT / "tests" / "apks"
FINGERPRINT = json.loads((APKS / "fingerprints.json").read_text())["rsa"]
EXTRA = "android.app.extra.PROVISIONING_"
# The upper and lower module of each character with which a code is drawn; 255 is light.
BLOCKS = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}


def drawn(text: str) -> list[dict]:
    """The codes in a terminal's output."""
    codes, lines = [], []
    for line in [*text.splitlines(), "end"]:
        if len(line) > 20 and set(line) <= set(BLOCKS):
            lines.append(line)
        elif lines:
            image = Image.new("L", (len(lines[0]), 2 * len(lines)), 255)
            for y, row in enumerate(lines):
                for x, block in enumerate(row):
                    image.putpixel((x, 2 * y), BLOCKS[block][0])
                    image.putpixel((x, 2 * y + 1), BLOCKS[block][1])
            codes.append(decoded(image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST)))
            lines = []
    return codes


def words(line: str) -> list[str]:
    """The words of an adb line after this machine's shell and the phone's have split it."""
    adb, shell, inner = shlex.split(line)
    assert (adb, shell) == ("adb", "shell")
    return shlex.split(inner)


def test_codes_in_terminal_and_png_enroll_a_phone(run, stack, operator):
    open_to_all = operator / "codes" / "enroll-desk.png"
    open_to_all.parent.mkdir()
    open_to_all.touch(0o644)
    shown = run("enroll", "create", "lobby's", "desk", "--png", "codes", "--server-url", "https://mdm.example/").stdout
    lobby, desk = drawn(shown)
    assert [code["alias"] for code in (lobby, desk)] == ["lobby's", "desk"]
    assert {code["server_url"] for code in (lobby, desk)} == {"https://mdm.example"}
    files = [operator / "codes" / f"{qr.file_name(alias)}.png" for alias in ("lobby's", "desk")]
    assert [decoded(Image.open(file)) for file in files] == [lobby, desk]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    headers = {"X-Admin": lobby["admin_key"]}
    answer = httpx.post(f"{stack.url}/v1/register", params={"alias": lobby["alias"]}, headers=headers)
    assert answer.status_code == 200
    run("devices", "delete", answer.json()["device_id"], "--yes")


def test_adb_line_survives_both_shells(run):
    shown = run("enroll", "create", "front desk", "--hmac-primary-key", "k'1 $x", "--hmac-rotation-key", "k2").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("adb ")]
    (code,) = drawn(shown)
    assert words(line) == [
        *("am", "broadcast", "-a", "com.nexmdm.CONFIGURE", "-n", "com.nexmdm/.ConfigReceiver"),
        *(
            "--es",
            "server_url",
            code["server_url"],
            "--es",
            "admin_key",
            code["admin_key"],
            "--es",
            "alias",
            "front desk",
        ),
        *("--es", "hmac_primary_key", "k'1 $x", "--es", "hmac_rotation_key", "k2"),
    ]


def test_json_contains_the_token_once_and_no_key(data, run):
    made = data("enroll", "create", "of-json", "--hmac-primary-key", "a-secret-key", "--uses", "3", "--note", "hall")
    assert "a-secret-key" not in json.dumps(made)
    (item,) = made["items"]
    assert json.loads(item["qr_content"])["admin_key"] == item["token"]
    assert item["uses_allowed"] == 3
    listed = next(token for token in data("enroll", "list") if token["token_id"] == item["token_id"])
    assert (listed["alias"], listed["note"], listed["uses_consumed"]) == ("of-json", "hall", 0)
    assert item["token"] not in run("enroll", "list").stdout


def test_token_is_revoked(data, run, stack):
    (item,) = data("enroll", "create", "revoked")["items"]
    some = run("enroll", "revoke", item["token_id"], "nobody's", "--json", code=3)
    assert json.loads(some.stdout) == {"revoked": [item["token_id"]]}
    assert "nobody's" in some.stderr
    headers = {"X-Admin-Key": item["token"]}
    assert httpx.post(f"{stack.url}/v1/register", json={"alias": "revoked"}, headers=headers).status_code == 401


def test_invalid_value_is_named(run):
    assert "$.aliases" in run("enroll", "create", "x" * 201, code=4).stderr


@pytest.fixture
def promoted(data):
    """The id of the agent's promoted build."""
    build = data("builds", "publish", str(APKS / "agent-1.apk"))
    data("builds", "promote", str(build["build_id"]))
    return build["build_id"]


def test_provisioning_without_an_agent_creates_no_token(run, data):
    known = len(data("enroll", "list", "--limit", "500"))
    refused = run("enroll", "create", "early", "--device-owner", "--admin-component", "com.other/.Admin", code=3)
    assert "No build of com.other is promoted" in refused.stderr
    assert len(data("enroll", "list", "--limit", "500")) == known


def test_device_owner_code_downloads_the_promoted_agent(run, data, promoted, monkeypatch):
    wifi = ("--wifi-ssid", "kiosks", "--wifi-password", "of-the-wifi")
    shown = run("enroll", "create", "owner", "--device-owner", *wifi).stdout
    provisioning, enrollment = drawn(shown)
    assert enrollment["alias"] == "owner"
    assert provisioning.pop(f"{EXTRA}DEVICE_ADMIN_COMPONENT_NAME") == "com.nexmdm/.NexDeviceAdminReceiver"
    checksum = provisioning.pop(f"{EXTRA}DEVICE_ADMIN_SIGNATURE_CHECKSUM")
    assert base64.urlsafe_b64decode(checksum + "=").hex() == FINGERPRINT
    assert "=" not in checksum
    address = provisioning.pop(f"{EXTRA}DEVICE_ADMIN_PACKAGE_DOWNLOAD_LOCATION")
    fetched = httpx.get(address, follow_redirects=True)
    assert hashlib.sha256(fetched.content).digest() == hashlib.sha256((APKS / "agent-1.apk").read_bytes()).digest()
    assert provisioning == {
        f"{EXTRA}WIFI_SSID": "kiosks",
        f"{EXTRA}WIFI_PASSWORD": "of-the-wifi",
        f"{EXTRA}WIFI_SECURITY_TYPE": "WPA",
    }
    masked = json.dumps(data("enroll", "create", "owner-2", "--device-owner", *wifi))
    assert "of-the-wifi" not in masked
    monkeypatch.setenv("AGENT_ADMIN_COMPONENT", "com.nexmdm/.Other")
    content = json.loads(data("enroll", "create", "owner-3", "--device-owner")["device_owner"]["qr_content"])
    assert content[f"{EXTRA}DEVICE_ADMIN_COMPONENT_NAME"] == "com.nexmdm/.Other"


def test_every_alias_has_its_own_file():
    aliases = ["lobby", "a/b", "a_b", "a b", "../../up", "..", "ünï", "x" * 200, "x" * 199]
    names = [qr.file_name(alias) for alias in aliases]
    assert names[0] == "enroll-lobby"
    assert len(set(names)) == len(aliases)
    assert all(Path(name).name == name and len(name) < 200 for name in names)


def test_code_wider_than_the_terminal_is_not_drawn(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then treats the output as a terminal
    monkeypatch.setenv("COLUMNS", "60")
    assert qr.draw(Output(), "short")
    assert not qr.draw(Output(), "x" * 400)


# --- aliases in the code that the agent puts into a query string


@pytest.mark.parametrize("alias", ["Hall & Bar", "Desk #2", "A+B", "100%", "50%25", "a=b&c", "Ünï / 1", "lobby"])
def test_alias_in_the_code_survives_the_query_of_the_agent(data, stack, alias):
    (item,) = data("enroll", "create", alias)["items"]
    code = json.loads(item["qr_content"])
    # The agent builds its URL in this way, without encoding.
    url = f"{code['server_url']}/v1/register?alias={code['alias']}"
    answer = httpx.post(url, headers={"X-Admin": code["admin_key"]})
    assert answer.status_code == 200
    device_id = answer.json()["device_id"]
    assert data("devices", "show", device_id)["alias"] == alias
    data("devices", "delete", device_id, "--yes")


# --- provisioning


def test_provisioning_warns_of_the_allowlist_and_recommends_the_cable(run, promoted):
    told = run("enroll", "create", "warned", "--device-owner").stderr
    assert "DPC allowlist" in told
    assert told.index("--script") < told.index("adb shell dpm set-device-owner com.nexmdm/.NexDeviceAdminReceiver")
    assert "docs/device.md" in told


@pytest.mark.parametrize("option", ["--device-owner", "--script=kit"])
@pytest.mark.parametrize(
    ("step", "undo", "said"),
    [
        (("rollout", "{id}", "40"), ("rollout", "{id}", "100"), "offered to 40 % of the fleet"),
        (("pause", "{id}", "--reason", "test"), ("resume", "{id}"), "is paused"),
        (
            ("rollout", "{id}", "100", "--alias-prefix", "pilot", "--yes"),
            ("rollout", "{id}", "100", "--all", "--yes"),
            "offered to chosen devices only",
        ),
    ],
)
def test_agent_that_is_not_offered_to_a_new_phone_creates_no_token(
    run, data, stack, promoted, option, step, undo, said
):
    stack.enroll("pilot")

    def build(words):
        return run("builds", *(word.format(id=promoted) for word in words))

    build(step)
    known = len(data("enroll", "list", "--limit", "500"))
    assert said in run("enroll", "create", "staged", option, code=4).stderr
    assert len(data("enroll", "list", "--limit", "500")) == known
    build(undo)


def test_url_of_the_code_serves_the_named_package(data, promoted):
    owner = data("enroll", "create", "of-a-package", "--device-owner")["device_owner"]
    address = httpx.URL(json.loads(owner["qr_content"])[f"{EXTRA}DEVICE_ADMIN_PACKAGE_DOWNLOAD_LOCATION"])
    assert address.params["package_name"] == "com.nexmdm"


# --- scripts


def execute(script, environment, code=0):
    done = subprocess.run(
        ["sh", script],
        stdin=subprocess.DEVNULL,
        cwd=Path(script).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def kit(data, promoted, operator):
    """kit(alias) returns the script for an alias, with HMAC keys and packages to disable."""

    def make(alias):
        (operator / "bloat.txt").write_text(
            "# of the maker\ncom.example.game\n\ncom.example.absent  # not everywhere\n"
        )
        keys = ("--hmac-primary-key", "k'1 $x", "--hmac-rotation-key", "`k2`")
        made = data("enroll", "create", alias, "--script", "kit", "--disable-packages", "bloat.txt", *keys)
        (script,) = made["scripts"]
        return operator / script

    return make


@pytest.mark.parametrize("alias", ["lobby", "front $(desk)", 'the "hall" \\', "it's & so #1 +1 %"])
def test_script_sets_up_a_phone_and_may_run_twice(kit, data, operator, alias):
    script = kit(alias)
    assert script.stat().st_mode & 0o777 == 0o700
    bin_ = operator / "bin"
    environment = adb.install(bin_)
    execute(script, environment)
    once = adb.phone(bin_)
    assert once["installed"] == {"com.nexmdm": "1"}
    assert once["device_owner"] == "com.nexmdm/.NexDeviceAdminReceiver"
    assert once["registered"] == 200
    assert once["extras"] | {"server_url": "", "admin_key": ""} == {
        "server_url": "",
        "admin_key": "",
        "alias": alias,
        "hmac_primary_key": "k'1 $x",
        "hmac_rotation_key": "`k2`",
    }
    for granted in (
        ["appops", "set", "com.nexmdm", "GET_USAGE_STATS", "allow"],
        ["pm", "grant", "com.nexmdm", "android.permission.POST_NOTIFICATIONS"],
        ["dumpsys", "deviceidle", "whitelist", "+com.nexmdm"],
        ["pm", "disable-user", "--user", "0", "com.example.game"],
    ):
        assert granted in once["ran"]
    device = data("devices", "show", alias)
    again = execute(script, environment).stdout
    twice = adb.phone(bin_)
    assert "already done with this token" in again
    changes = {"installed", "device_owner", "settings", "extras", "registered"}
    assert {name: twice[name] for name in changes} == {name: once[name] for name in changes}
    assert sum(words[:2] == ["am", "broadcast"] for words in twice["ran"]) == 1
    assert data("devices", "show", alias)["device_id"] == device["device_id"]
    data("devices", "delete", device["device_id"], "--yes")


def test_script_continues_where_an_older_android_lacks_a_command(kit, operator):
    environment = adb.install(operator / "bin", android=12)
    assert "before Android 13" in execute(kit("older"), environment).stdout


def test_script_stops_when_the_phone_has_an_account(kit, operator):
    environment = adb.install(operator / "bin", accounts=1)
    refused = execute(kit("taken"), environment, code=1)
    assert "remove every account" in refused.stderr
    assert "extras" not in adb.phone(operator / "bin")


def test_script_installs_only_the_expected_agent(kit, operator):
    script = kit("careful")
    (script.parent / "com.nexmdm-1.apk").write_bytes(b"another")
    execute(script, adb.install(operator / "bin"))
    fetched = (script.parent / "com.nexmdm-1.apk").read_bytes()
    assert fetched == (APKS / "agent-1.apk").read_bytes()


def test_invalid_package_list_creates_no_token(run, data, promoted, operator):
    (operator / "bloat.txt").write_text("com.example.game\nrm -rf /\n")
    known = len(data("enroll", "list", "--limit", "500"))
    refused = run("enroll", "create", "x", "--script", "kit", "--disable-packages", "bloat.txt", code=2)
    assert "line 2 is not a package name" in refused.stderr
    assert len(data("enroll", "list", "--limit", "500")) == known


# --- rotating the HMAC key


@pytest.fixture
def enrolled(data, stack):
    """Two enrolled devices, which are deleted afterwards."""
    made = data("enroll", "create", "rotate-1", "rotate-2")["items"]
    for item in made:
        body, headers = {"alias": item["alias"]}, {"X-Admin-Key": item["token"]}
        assert httpx.post(f"{stack.url}/v1/register", json=body, headers=headers).status_code == 200
    yield
    for item in made:
        data("devices", "delete", item["alias"], "--yes")


KEYS = ("--hmac-primary-key", "old", "--hmac-rotation-key", "new")


@pytest.mark.parametrize("chosen", [("rotate-1", "rotate-2"), ("--alias-prefix", "rotate-")])
def test_rotate_keys_prints_a_line_for_each_phone(run, data, stack, enrolled, chosen):
    shown = run("enroll", "rotate-keys", *chosen, *KEYS)
    lines = [words(line) for line in shown.stdout.splitlines() if line.startswith("adb ")]
    assert [line[line.index("alias") + 1] for line in lines] == ["rotate-1", "rotate-2"]
    assert all(line[-6:] == ["--es", "hmac_primary_key", "old", "--es", "hmac_rotation_key", "new"] for line in lines)
    before = data("devices", "show", "rotate-1")["device_id"]
    token = lines[0][lines[0].index("admin_key") + 1]
    again = httpx.post(f"{stack.url}/v1/register", json={"alias": "rotate-1"}, headers={"X-Admin-Key": token})
    assert again.json()["device_id"] == before
    assert "COMMAND_HMAC_KEY" in shown.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--all", "--hmac-primary-key", "old"), 2, "Give both keys"),
        (KEYS, 2, "Choose devices"),
        (("--all", "rotate-1", *KEYS), 2, "Choose devices"),
        (("--alias-prefix", "no such", *KEYS), 3, "No device matches"),
    ],
)
def test_rotate_keys_names_what_is_missing(run, options, code, said):
    assert said in run("enroll", "rotate-keys", *options, code=code).stderr
