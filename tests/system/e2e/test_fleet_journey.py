"""A fleet's life: enrollment, all actions, a failing rollout, an hour offline, deletions, resets. No status lies."""

import os
import subprocess
import sys

from local.fleet.journey import ACTIONS
from tests.support.api import ROOT


def test_no_status_is_false(url):
    """Half of the devices run the existing agent (profile field), half the reference agent."""
    ended = subprocess.run(
        [sys.executable, "-m", "local.fleet.journey", "--devices", "50", "--profile", "both"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "good: no status was false" in ended.stdout


def test_every_action_is_sent():
    from nexmdm.commands import actions

    assert set(ACTIONS) == set(actions.ACTIONS) - {"install_apk", "remote_exec_shell"}
