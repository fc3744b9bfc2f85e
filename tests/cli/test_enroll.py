"""Codes are read back by a decoder, as a phone would read them."""

import base64
import hashlib
import json
import shlex
from pathlib import Path

import httpx
import pytest
import zxingcpp
from nexmdm_cli import qr
from nexmdm_cli.output import Output
from PIL import Image

from tests.support.api import ROOT

APKS = ROOT / "tests" / "apks"
FINGERPRINT = json.loads((APKS / "fingerprints.json").read_text())["rsa"]
EXTRA = "android.app.extra.PROVISIONING_"
# Upper and lower module of each character that a code is drawn with; light is 255.
BLOCKS = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}


def decoded(image: Image.Image) -> dict:
    (found,) = zxingcpp.read_barcodes(image)
    return json.loads(found.text)


def drawn(text: str) -> list[dict]:
    """The codes in what a terminal shows."""
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
    """As the shell of this machine and then the phone's take an adb line apart."""
    adb, shell, inner = shlex.split(line)
    assert (adb, shell) == ("adb", "shell")
    return shlex.split(inner)


def test_the_codes_in_terminal_and_png_enrol_a_phone(run, stack, operator):
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


def test_the_adb_line_survives_both_shells(run):
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


def test_json_holds_the_token_once_and_no_key(data, run):
    made = data("enroll", "create", "of-json", "--hmac-primary-key", "a-secret-key", "--uses", "3", "--note", "hall")
    assert "a-secret-key" not in json.dumps(made)
    (item,) = made["items"]
    assert json.loads(item["qr_content"])["admin_key"] == item["token"]
    assert item["uses_allowed"] == 3
    listed = next(token for token in data("enroll", "list") if token["token_id"] == item["token_id"])
    assert (listed["alias"], listed["note"], listed["uses_consumed"]) == ("of-json", "hall", 0)
    assert item["token"] not in run("enroll", "list").stdout


def test_revoke(data, run, stack):
    (item,) = data("enroll", "create", "revoked")["items"]
    some = run("enroll", "revoke", item["token_id"], "nobody's", "--json", code=3)
    assert json.loads(some.stdout) == {"revoked": [item["token_id"]]}
    assert "nobody's" in some.stderr
    headers = {"X-Admin-Key": item["token"]}
    assert httpx.post(f"{stack.url}/v1/register", json={"alias": "revoked"}, headers=headers).status_code == 401


def test_a_wrong_value_is_named(run):
    assert "$.aliases" in run("enroll", "create", "x" * 201, code=4).stderr


@pytest.fixture
def promoted(data):
    build = data("builds", "publish", str(APKS / "agent-1.apk"))
    data("builds", "promote", str(build["build_id"]))


def test_provisioning_without_an_agent_makes_no_token(run, data):
    known = len(data("enroll", "list", "--limit", "500"))
    refused = run("enroll", "create", "early", "--device-owner", "--admin-component", "com.other/.Admin", code=3)
    assert "No build of com.other is promoted" in refused.stderr
    assert len(data("enroll", "list", "--limit", "500")) == known


def test_the_device_owner_code_fetches_the_promoted_agent(run, data, promoted, monkeypatch):
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


def test_every_alias_has_a_file_of_its_own_in_the_folder():
    aliases = ["lobby", "a/b", "a_b", "a b", "../../up", "..", "ünï", "x" * 200, "x" * 199]
    names = [qr.file_name(alias) for alias in aliases]
    assert names[0] == "enroll-lobby"
    assert len(set(names)) == len(aliases)
    assert all(Path(name).name == name and len(name) < 200 for name in names)


def test_a_code_wider_than_the_terminal_is_not_drawn_broken(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", "60")
    assert qr.draw(Output(), "short")
    assert not qr.draw(Output(), "x" * 400)
