"""Run schemathesis on every route of docs/openapi.json, through the gateway, as a device, an enrolling phone and an
operator. No response is a 5xx; each has a documented status, type, headers and schema. A request that fits its schema
is answered or refused by a known rule, and any other is refused.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import samples
from tests.support.api import ROOT, call
from tests.support.builds import act
from tests.support.gateway import KEYS, gateway

FUZZ = ROOT / "tests" / "system" / "fuzz"
REFERENCE = ROOT / "docs" / "openapi.json"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "refuses_only_by_its_rules",
    "refuses_what_is_wrong",
)


def checked(url: str, phases: str, examples: int, deterministic: bool) -> str:
    """Send schemathesis's requests and check every response.

    Args:
        url: A test's own database, with a fake FCM and a bucket.
        phases: Of schemathesis: examples, coverage (the limits of every value), fuzzing, stateful.
        examples: How many random requests are sent to each route.

    Returns:
        What was tried, in one line.
    """
    callers = _callers()
    command = [
        *(Path(sys.executable).parent / "schemathesis", "--config-file", FUZZ / "schemathesis.toml", "--no-color"),
        *("run", REFERENCE, "--checks", ",".join(CHECKS), "--continue-on-failure", "--phases", phases),
        *("--max-examples", str(examples), "--request-timeout", "30"),
        *(("--generation-deterministic",) if deterministic else ()),
    ]
    environment = {**os.environ, **callers, "SCHEMATHESIS_HOOKS": "tests.system.fuzz.hooks", "PYTHONPATH": str(ROOT)}
    with gateway(url) as address, TemporaryDirectory(prefix="nexmdm-fuzz-") as folder:
        done = subprocess.run(
            [*map(str, command), "--url", address],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    requests = re.search(r"^ *([\d,]+) generated", done.stdout, re.MULTILINE)[1]
    return f"schemathesis, {phases}: {requests} requests to {REFERENCE.read_text().count('operationId')} routes"


def _callers() -> dict[str, str]:
    """All callers, in a system with objects to find: the environment of `hooks`."""
    samples.make_real()
    assert act(1, "rollout", staged_rollout_percent=100, install=True).status == 202
    made = call("POST", "/v1/enroll-tokens", {"aliases": ["fuzz"], "uses_allowed": 100_000, "expires_in_sec": 86_400})
    (token,) = made.json["items"]
    return {
        "AWS_ACCESS_KEY_ID": KEYS.access_key,
        "AWS_SECRET_ACCESS_KEY": KEYS.secret_key,
        "FUZZ_DEVICE_ID": samples.load("fcm_dispatch")["pathParameters"]["device_id"],
        "FUZZ_DEVICE_TOKEN": samples.load("heartbeat")["headers"]["authorization"].removeprefix("Bearer "),
        "FUZZ_TOKEN_ID": token["token_id"],
        "FUZZ_ENROLMENT_TOKEN": token["token"],
    }
