"""What a function does while Lambda initializes it, and that a failure there affects no request."""

import subprocess
import sys

import pytest
from nexmdm.runtime import database, settings, warmup

from tests.support.api import ROOT, call
from tests.support.commands import enrolled


@pytest.fixture
def fresh(url: str):
    """An environment that has not connected to the database yet."""
    database.connection().close()
    return database.connection()


def initialized(monkeypatch: pytest.MonkeyPatch, kind: str | None, *prepare) -> None:
    if kind is None:
        monkeypatch.delenv("AWS_LAMBDA_INITIALIZATION_TYPE", raising=False)
    else:
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", kind)
    warmup.warm_up(*prepare)


def test_on_demand_environment_logs_in_before_the_first_request(fresh, monkeypatch):
    done = []
    initialized(monkeypatch, "on-demand", lambda: done.append("prepared"))
    assert fresh._connection is not None
    assert done == ["prepared"]
    before = fresh._connection
    assert fresh.execute("SELECT 1 AS n") == [{"n": 1}]
    assert fresh._connection is before


@pytest.mark.parametrize("kind", ["provisioned-concurrency", "snap-start"])
def test_provisioned_or_snapshot_environment_opens_no_connection(fresh, monkeypatch, kind: str):
    done = []
    initialized(monkeypatch, kind, lambda: done.append("prepared"))
    assert fresh._connection is None
    assert done == ["prepared"]


def test_warmup_does_nothing_outside_lambda(fresh, monkeypatch):
    done = []
    initialized(monkeypatch, None, lambda: done.append("prepared"))
    assert fresh._connection is None
    assert done == []


def test_warmup_failure_is_silent_and_the_first_request_is_served(fresh, monkeypatch, capfd):
    _, token = enrolled("lobby", "fcm:lobby")
    fresh.close()
    right = settings.load().database_url
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nothing")
    settings.load.cache_clear()
    capfd.readouterr()

    def broken() -> None:
        raise RuntimeError("no signer")

    initialized(monkeypatch, "on-demand", broken)
    assert fresh._connection is None
    written = capfd.readouterr()
    assert (written.out, written.err) == ("", "")
    monkeypatch.setenv("DATABASE_URL", right)
    settings.load.cache_clear()
    assert call("POST", "/v1/heartbeat", {}, token=token).status == 200


def test_handler_is_imported_without_any_setting():
    code = "import functions.heartbeat.handler as h; print(h.handler.__name__)"
    environment = {"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "handle\n", "")
