"""Which stack and which credentials the command uses: given, saved or found; and the message when there are none."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from nexmdm_cli import local_stack
from nexmdm_cli.failures import Failure
from nexmdm_cli.stack import Choice, find

from tests.cli.stack import KEYS
from tests.support.cli import nexmdm

API = "https://abc123.execute-api.ap-southeast-2.amazonaws.com"


def announce(folder: Path, url: str, pid: int | None = None, **keys: str) -> Path:
    """Write the file with which `local.run` announces itself."""
    file = folder / ".nexmdm" / "stack.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"url": url, "region": "eu-west-1", "pid": pid or os.getpid(), **keys}))
    return file


@pytest.fixture
def local(home, stack):
    """A running local stack whose file is in a parent of the operator's folder."""
    keys = {"access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    file = announce(home, stack.url, **keys)
    (home / "deeper").mkdir()
    os.chdir(home / "deeper")
    return file


def test_missing_stack_is_reported(home):
    failed = nexmdm("devices", "list", code=2)
    assert "No stack was given" in failed.stderr
    assert all(way in failed.stderr for way in ("--url", "NEXMDM_URL", "nexmdm use", "make run"))
    assert "make run" in nexmdm("devices", "list", "--local", code=6).stderr
    for url in ("abc", "ftp://x", "https://", "http://[::"):
        assert "must begin with https://" in nexmdm("devices", "list", "--url", url, code=2).stderr


def test_running_local_stack_is_found_without_configuration(local, stack):
    assert find(Choice()).url == stack.url
    for said in ((), ("--local",), ("--url", stack.url)):
        nexmdm("devices", "list", "--limit", "1", *said)


def test_deleted_folder_has_no_local_stack(operator, stack):
    (operator / "gone").mkdir()
    os.chdir(operator / "gone")
    (operator / "gone").rmdir()
    nexmdm("devices", "list", "--limit", "1")


def test_ended_local_stack_is_ignored(local, stack):
    announce(local.parent.parent, stack.url, pid=2**22 - 1)
    assert "No stack was given" in nexmdm("devices", "list", code=2).stderr


def test_file_of_another_user_is_ignored(local, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert local_stack.running() is None


@pytest.mark.parametrize(
    "url", ["https://evil.example", "http://127.0.0.1.evil.example", "http://127.0.0.1:80@evil.example"]
)
def test_file_that_names_another_machine_is_ignored(home, url):
    announce(home, url)
    assert local_stack.running() is None


def test_local_stack_uses_its_own_keys(home, stack, monkeypatch):
    announce(home, stack.url)
    assert "No AWS credentials" in nexmdm("devices", "list", code=5).stderr
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    nexmdm("devices", "list")


def test_given_stack_precedes_saved_and_saved_precedes_found(local, stack, monkeypatch):
    for name, value in {**KEYS, "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    nexmdm("use", API, "--region", "eu-central-1")
    assert find(Choice()).url == API
    assert find(Choice(url="https://other.example")).url == "https://other.example"
    assert find(Choice(local=True)).url == stack.url
    assert json.loads(nexmdm("use", "--json").stdout) == {"url": API, "profile": None, "region": "eu-central-1"}
    nexmdm("use", "--forget")
    assert find(Choice()).url == stack.url


def test_use_without_a_url_saves_nothing_and_says_so(home):
    for option in ("--profile", "--region"):
        assert f"{option} is saved with a URL" in nexmdm("use", option, "x", code=2).stderr
    assert "none is saved" in nexmdm("use").stdout


def test_unwritable_configuration_is_reported(home, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "file"))
    for arguments in ((API,), ("--forget",)):
        assert "stack.json cannot be changed" in nexmdm("use", *arguments, code=2).stderr


def test_invalid_saved_file_is_reported(home):
    nexmdm("use", API)
    file = home / "config" / "nexmdm" / "stack.json"
    file.write_text("{")
    assert "use --forget" in nexmdm("devices", "list", code=2).stderr


def test_profile_signs_and_the_url_gives_the_region(home, monkeypatch):
    credentials = home / "aws-credentials"
    credentials.write_text("[fleet]\naws_access_key_id = AKIAFLEET\naws_secret_access_key = s\n")
    for given in (Choice(url=API, profile="fleet"), Choice(url=API)):
        stack = find(given)
        assert (stack.auth._credentials.access_key, stack.auth._region) == ("AKIAFLEET", "ap-southeast-2")
        monkeypatch.setenv("AWS_PROFILE", "fleet")
    with pytest.raises(Failure, match="The region of"):
        find(Choice(url="https://mdm.example"))
    assert find(Choice(url="https://mdm.example", region="eu-west-3")).auth._region == "eu-west-3"


def test_missing_credentials_are_reported(home):
    failed = nexmdm("devices", "list", "--url", API, code=5)
    assert "No AWS credentials were found." in failed.stderr
    assert "--profile" in failed.stderr


def test_unknown_profile_is_reported(home):
    assert "nobody" in nexmdm("devices", "list", "--url", API, "--profile", "nobody", code=5).stderr


def test_expired_sso_session_explains_how_to_log_in(home):
    (home / "aws-config").write_text(
        "[profile fleet]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Operator\n"
        "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n"
    )
    failed = nexmdm("devices", "list", "--url", API, "--profile", "fleet", code=5)
    assert "Run `aws sso login --profile fleet`." in failed.stderr


def test_credentials_without_access_are_reported(operator, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    failed = nexmdm("devices", "list", code=5)
    assert "403" in failed.stderr
    assert "OperatorPolicyArn" in failed.stderr


def test_url_that_is_not_a_stack_is_reported(operator, stack):
    failed = nexmdm("devices", "list", "--url", f"{stack.url}/stage", code=3)
    assert "has no such route. Is it the URL of a NexMDM stack" in failed.stderr


class Website(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        pass


def test_url_of_a_website_is_reported(operator):
    with ThreadingHTTPServer(("127.0.0.1", 0), Website) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        failed = nexmdm("devices", "list", "--url", f"http://127.0.0.1:{server.server_port}", code=3)
        server.shutdown()
    assert "not with JSON" in failed.stderr
