import json

import pytest

from tests.support.cli import nexmdm


@pytest.fixture(scope="module")
def phones(stack):
    phones = [stack.enroll(f"dev-{n:03}") for n in range(7)]
    for n, phone in enumerate(phones[:5]):
        phone.heartbeat(battery_pct=10 * n + 5, plugged=False, agent_version=f"3.{n % 2}", network_type="wifi")
    return phones


@pytest.fixture(autouse=True)
def _phones(phones):
    pass


def aliases(rows):
    return [row["alias"] for row in rows]


def test_list_takes_every_page_and_every_filter(data, monkeypatch):
    monkeypatch.setattr("nexmdm_cli.api.PAGE", 3)
    mine = ("devices", "list", "--alias-prefix", "dev-")
    assert aliases(data(*mine)) == [f"dev-{n:03}" for n in range(7)]
    assert aliases(data(*mine, "--silent")) == ["dev-005", "dev-006"]
    assert aliases(data(*mine, "--online", "--agent-version", "3.1")) == ["dev-001", "dev-003"]
    assert aliases(data(*mine, "--status", "error")) == []
    assert aliases(data(*mine, "--limit", "4")) == ["dev-000", "dev-001", "dev-002", "dev-003"]


def test_output_to_a_pipe_is_not_truncated(run, phones):
    table = run("devices", "list", "--alias-prefix", "dev-00").stdout.splitlines()
    assert table[0].split() == [
        "ALIAS",
        "STATE",
        "SEEN",
        "BATTERY",
        "NETWORK",
        "AGENT",
        "UNITY",
        "MODEL",
        "LABELS",
        "DEVICE",
        "ID",
    ]
    assert table[1].startswith("dev-000  online")
    assert table[1].endswith(phones[0].device_id)
    assert not any(line.endswith(" ") for line in table)
    nothing = run("devices", "list", "--alias-prefix", "nobody")
    assert (nothing.stdout, nothing.stderr) == ("", "No device matches.\n")


def test_show_by_alias_and_by_id(data, run, phones):
    assert data("devices", "show", "dev-002")["device_id"] == phones[2].device_id
    assert data("devices", "show", phones[2].device_id)["alias"] == "dev-002"
    assert "25 %" in run("devices", "show", "dev-002").stdout


def test_unknown_device_is_named(run):
    near = run("devices", "show", "dev-", code=3)
    assert near.stdout == ""
    assert "There is no device 'dev-'." in near.stderr
    assert "dev-000, dev-001" in near.stderr
    assert "There is no device" in run("devices", "show", "0d956d92-28fd-46d7-b898-63b931130202", code=3).stderr


def test_heartbeats_of_a_device_are_listed(data, run):
    rows = data("devices", "heartbeats", "dev-001")
    assert [(row["battery_pct"], row["agent_version"]) for row in rows] == [(15, "3.1")]
    assert "15 %" in run("devices", "heartbeats", "dev-001").stdout


def test_watch_shows_changes(run):
    looks = run("devices", "watch", "--alias-prefix", "dev-", "--times", "2", "--interval", "0.2", "--json").stdout
    assert [len(json.loads(look)["devices"]) for look in looks.splitlines()] == [7, 7]
    plain = run("devices", "watch", "--alias-prefix", "dev-00", "--times", "1").stdout
    assert "silent" in plain.splitlines()[0]
    assert plain.splitlines()[2].startswith("dev-000")


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300"])
def test_interval_that_never_ends_is_refused(run, seconds):
    assert "--interval" in run("devices", "watch", "--interval", seconds, "--times", "2", code=2).stderr


def test_device_is_renamed(data, run, phones):
    assert data("devices", "rename", "dev-003", "renamed")["alias"] == "renamed"
    assert "alias" in run("devices", "rename", "renamed", "dev-004", code=4).stderr
    assert run("devices", "rename", "renamed", "dev-003").stdout == "renamed is now dev-003\n"


def test_delete_asks_or_needs_yes_without_a_terminal(run, data, stack):
    stack.enroll("leaving")
    refused = run("devices", "delete", "leaving", answer="y\n", code=2)
    assert "--yes" in refused.stderr
    assert data("devices", "show", "leaving")["alias"] == "leaving"
    assert run("devices", "delete", "leaving", "--yes").stdout == "deleted 1 device (leaving)\n"
    run("devices", "show", "leaving", code=3)


def test_terminal_control_characters_are_not_printed(run, stack):
    phone = stack.enroll("evil[bold]x")
    phone.heartbeat(network={"transport": "wifi\x1b[2J[bold]x"})
    table = run("devices", "list", "--alias-prefix", "evil").stdout
    assert "\x1b" not in table
    assert "evil[bold]x" in table
    assert "wifi�[2J[bold]x" in table


def test_alias_completion_is_silent_when_the_api_is_unreachable(home, operator, monkeypatch):
    from nexmdm_cli import addresses

    assert addresses.complete("dev-00")[:2] == ["dev-000", "dev-001"]
    monkeypatch.setenv("NEXMDM_URL", "http://127.0.0.1:1")
    assert addresses.complete("dev-00") == []


def test_unreachable_api_is_reported(home, operator):
    failed = nexmdm("devices", "list", "--url", "http://127.0.0.1:1", code=6)
    assert "http://127.0.0.1:1 cannot be reached" in failed.stderr
