"""No output of the command quotes a credential, in whatever form it was pasted; a path keeps its query and its host."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import nexmdm

PROGRAM = Path(sys.executable).with_name("nexmdm")
CANARY = "canary/of+the/test"
AROUND = ["{}\n", "{}\r\n", " {} ", "\t{}", "\ufeff{}", '"{}"', "'{}'", "\"'{}'\"", "\ufeff'{}'\r\n"]
WITHIN = ["{}\n{}", "{} {}", "{}\r\nX-Evil: {}", "{}é", "{}\x00"]


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("form", AROUND, ids=repr)
def test_credentials_are_read_in_every_pasted_form(operator, form, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, form.format(os.environ[name]))
    assert nexmdm("devices", "list", "--json").stderr == ""
    # The operator of this stack has no session token, so the gateway's refusal shows that the request arrived.
    monkeypatch.setenv("AWS_SESSION_TOKEN", form.format(CANARY))
    refused = nexmdm("devices", "list", code=5).stderr
    assert "(403)" in refused
    assert CANARY not in refused


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("form", WITHIN[:-1], ids=repr)
def test_invalid_credential_is_named_and_not_quoted(operator, name, form, monkeypatch):
    monkeypatch.setenv(name, form.format(CANARY, CANARY))
    ended = process("devices", "list")
    assert (ended.returncode, ended.stdout) == (5, "")
    assert name in ended.stderr
    assert CANARY not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("form", [form for form in WITHIN if form != "{} {}"], ids=repr)
def test_unencodable_request_is_not_quoted(operator, form):
    key = form.format(CANARY, CANARY)
    failed = nexmdm("api", "POST", "/v1/commands", "--key", key, "-d", "{}", code=2)
    assert CANARY not in failed.stderr + failed.stdout
    failed = nexmdm("api", "GET", f"/v1/devices?alias={CANARY}\n", code=2)
    assert CANARY not in failed.stderr + failed.stdout


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("form", ["http://u:{}@h:x", "gopher://u:{}@h"])
def test_unusable_proxy_is_not_quoted(operator, name, form, monkeypatch):
    monkeypatch.setenv(name, form.format(CANARY.replace("/", "")))
    failed = nexmdm("devices", "list", code=2)
    assert name in failed.stderr
    assert "canary" not in failed.stderr + failed.stdout


@pytest.mark.parametrize("given", [f"password:{CANARY}", CANARY, f"password=@{CANARY}", f"password=@{CANARY * 300}"])
def test_invalid_parameter_is_not_quoted(operator, given):
    failed = nexmdm("send", "wifi_connect", "ssid=kiosk", given, "--to", "lobby", code=2)
    assert CANARY not in failed.stderr + failed.stdout


def test_keys_of_the_adb_line_are_read_in_every_pasted_form(operator, monkeypatch):
    monkeypatch.setenv("NEXMDM_HMAC_PRIMARY_KEY", "\ufeffthe-key-of-the-fleet\r\n")
    monkeypatch.setenv("NEXMDM_HMAC_ROTATION_KEY", "\n")
    shown = nexmdm("enroll", "create", "lobby").stdout
    assert "--es hmac_primary_key the-key-of-the-fleet" in shown
    assert "hmac_rotation_key" not in shown


def test_path_keeps_its_query(operator, stack):
    for alias in ("query-a", "query-b"):
        stack.enroll(alias)
    page = json.loads(nexmdm("api", "GET", "/v1/devices?limit=1&alias=query-").stdout)
    assert [device["alias"] for device in page["items"]] == ["query-a"]
    assert page["next_cursor"]
    empty = json.loads(nexmdm("api", "GET", "/v1/devices?alias=caf%C3%A9%20%2B&limit=5").stdout)
    assert empty == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("route", ["https://evil.example/v1/devices", "//evil.example/v1/devices", "v1/devices"])
def test_path_cannot_name_another_host(operator, route):
    assert "PATH" in nexmdm("api", "GET", route, code=2).stderr
