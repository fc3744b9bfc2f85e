"""The program as a process: its help, its exit codes, its output streams and its shell completion."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from nexmdm_cli.failures import Code
from nexmdm_cli.main import EXIT_CODES, app
from typer.main import get_command

from local import template
from tests.local.processes import eventually
from tests.support.api import ROOT
from tests.support.cli import nexmdm

PROGRAM = Path(sys.executable).with_name("nexmdm")


def names(command, before=()):
    """The path of every command, such as ("devices", "list")."""
    for name, inner in getattr(command, "commands", {}).items():
        yield (*before, name)
        yield from names(inner, (*before, name))


ALL = list(names(get_command(app)))
GROUPS = {name[:-1] for name in ALL if len(name) > 1}


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ALL, ids=" ".join)
def test_every_command_has_help(name, home):
    text = nexmdm(*name, "--help").stdout
    assert "Usage: " in text
    if name not in GROUPS:
        assert "--json" in text


def test_documented_exit_codes_match_the_code():
    documented = {int(number) for number in re.findall(r"^(\d+) ", EXIT_CODES, re.MULTILINE)}
    assert documented == {0, 130, *Code}


def test_json_goes_to_stdout_and_messages_to_stderr(operator):
    good = process("devices", "list", "--json")
    assert (good.returncode, type(json.loads(good.stdout)), good.stderr) == (0, list, "")
    bad = process("devices", "show", "nobodys", "--json")
    assert (bad.returncode, bad.stdout) == (3, "")
    assert bad.stderr.startswith("error: ")
    assert "Traceback" not in bad.stderr
    assert process("send").returncode == 2
    assert process("--version").stdout == f"nexmdm {(ROOT / 'VERSION').read_text()}"


def test_color_is_used_only_on_terminals_that_allow_it(operator, stack, monkeypatch):
    stack.enroll("colourful")
    shown = ("devices", "list", "--alias-prefix", "colourful")
    assert "\x1b" not in nexmdm(*shown).stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31msilent" in nexmdm(*shown).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in nexmdm(*shown).stdout


def test_shell_completes_actions(home):
    asked = {"_TYPER_COMPLETE_ARGS": "nexmdm send rebo", "_NEXMDM_COMPLETE": "complete_zsh"}
    assert "reboot" in process(**asked).stdout


def test_ctrl_c_exits_with_0_from_a_watch_and_130_otherwise(operator, stack):
    stack.enroll("mute").answer = None
    for arguments, code in ((("devices", "watch", "--json"), 0), (("send", "ping", "--to", "mute"), 130)):
        running = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        (running.stdout if code == 0 else running.stderr).readline()
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=20)
        assert running.returncode == code, errors
        assert "Traceback" not in errors


def test_api_calls_any_route(run):
    assert json.loads(run("api", "get", "/v1/devices?limit=1").stdout).keys() == {"items", "next_cursor"}
    made = run("api", "POST", "/v1/enroll-tokens", "-d", '{"aliases": ["by-hand"]}').stdout
    assert json.loads(made)["items"][0]["alias"] == "by-hand"
    typed = run("api", "POST", "/v1/enroll-tokens", "-d", "@-", answer='{"aliases": [""]}', code=4)
    assert "$.aliases[0]" in typed.stderr
    for data in ("{", '{"a": NaN}', "[" * 100_000):
        assert "--data" in run("api", "POST", "/v1/commands", "-d", data, code=2).stderr


def test_status_shows_the_fleet(data, run, stack, settled):
    stack.enroll("silent-one")
    good = data("status", "--max-silent", "100")
    assert (good["healthy"], good["wrong"]) == (True, [])
    assert good["fleet"]["silent"] >= 1
    failed = run("status", "--max-silent", "0", code=1)
    assert "devices are silent" in failed.stderr
    assert "something is wrong" in failed.stdout


def test_status_counts_unknown_commands(data, run, stack, settled):
    phone = stack.enroll("lost")
    stack.fake_fcm.behave(phone.address, "503")
    data("send", "ping", "--to", "lost", "--no-wait")
    assert "1 command is unknown" in run("status", "--max-silent", "100", code=1).stderr


def test_alerts_are_listed(run, data, stack):
    if not any(route.key == "GET /v1/alerts" for route in template.load().routes):
        assert "has no such route" in run("alerts", code=3).stderr
        return
    stack.enroll("weak").heartbeat(battery_pct=4, plugged=False)
    mine = ("alerts", "--device", "weak", "--condition", "low_battery")
    eventually(lambda: data(*mine))
    assert data(*mine)[0]["detail"]["battery_pct"] == 4
    assert "battery_pct 4" in run(*mine).stdout
    assert data("alerts", "--history", "--limit", "1")
    assert "Nothing is wrong." in run("alerts", "--device", "weak", "--condition", "unity_down").stderr


def test_db_runs_the_tools_of_the_checkout(home, url, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert process("db", "migrate").returncode == 0
    checked = json.loads(nexmdm("db", "check-schema", "--json").stdout)
    assert (checked["exit_code"], "Schema validation passed!" in checked["output"]) == (0, True)
    assert json.loads(nexmdm("db", "adopt", "--dry-run", "--json").stdout)["output"]
    assert "--yes" in nexmdm("db", "adopt", code=2).stderr


def test_db_outside_a_checkout_is_refused(home):
    assert "a checkout of the repository" in nexmdm("db", "migrate", code=2).stderr
