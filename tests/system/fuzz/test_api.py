"""Run schemathesis on every route of docs/openapi.json, through the gateway, as a device, an enrolling phone and an
operator. No response is a 5xx; each has a documented status, type, headers and schema. A request that fits its schema
is answered or refused by a known rule, and any other is refused.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import samples
from tests.support.api import ROOT, call
from tests.support.builds import act
from tests.support.gateway import KEYS, gateway

HERE = Path(__file__).parent
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "refuses_only_by_its_rules",
    "refuses_what_is_wrong",
)
SUITE_EXAMPLES = 5


@pytest.fixture
def callers(url: str, fake_fcm, bucket) -> dict[str, str]:
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


@pytest.mark.timeout(7200)
def test_every_route_matches_the_openapi_document(url, callers, scale, tried, tmp_path):
    with gateway(url) as address:
        done = schemathesis(address, callers, tmp_path, scale)
    found = re.search(r"^ *([\d,]+) generated", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr
    tried.append(f"schemathesis: {found[1]} requests to {len(re.findall('operationId', REFERENCE.read_text()))} routes")


REFERENCE = ROOT / "docs/openapi.json"


def schemathesis(address: str, callers: dict[str, str], folder: Path, scale: int | None) -> subprocess.CompletedProcess:
    command = [
        *(Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml", "--no-color"),
        *("run", REFERENCE, "--url", address, "--checks", ",".join(CHECKS), "--continue-on-failure"),
        *("--max-examples", str(scale or SUITE_EXAMPLES), "--request-timeout", "30"),
        *(() if scale else ("--generation-deterministic",)),
    ]
    environment = {**os.environ, **callers, "SCHEMATHESIS_HOOKS": "tests.system.fuzz.hooks", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(word) for word in command], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
