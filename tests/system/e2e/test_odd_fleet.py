"""A fleet whose devices send odd values, lose their clocks, are wiped and share tokens. No report is refused."""

import os
import subprocess
import sys

from tests.support.api import ROOT


def test_no_odd_report_is_refused_and_every_device_is_online(url):
    options = ["--odd", "--devices", "10", "--interval", "0.5", "--backoff", "0.1", "--minutes", "0.25"]
    ended = subprocess.run(
        [sys.executable, "-m", "local.fleet", *options, "--environments", "2"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "good: 0 rejected reports, every device online" in ended.stdout
