"""Every route of template.yaml is called by every principal, over HTTP, through the gateway in its own processes."""

import httpx
import pytest

from local import template
from tests.support.gateway import gateway
from tests.system.access import stage as stages
from tests.system.access.principals import ANOTHER, EXPECTED, PRINCIPALS, RIGHT, request
from tests.system.access.routes import ENTRIES

ROUTES = template.load().routes


def test_every_route_is_in_the_matrix():
    assert {route.key for route in ROUTES} == set(ENTRIES), "add the route to tests/system/access/routes.py"
    for route in ROUTES:
        assert (ENTRIES[route.key].kind == "operator") == (route.authorizer == "AWS_IAM"), route.key


def test_every_expectation_names_a_principal():
    for kind, expected in EXPECTED.items():
        assert set(expected) <= {*PRINCIPALS, "*"}, kind


@pytest.fixture
def stage(url, fake_fcm, bucket) -> stages.Stage:
    return stages.set_up()


def expected(key: str, principal: str) -> int:
    entry = ENTRIES[key]
    status = EXPECTED[entry.kind].get(principal, EXPECTED[entry.kind]["*"])
    return {RIGHT: entry.right, ANOTHER: entry.another}.get(status, status)


def test_every_principal_gets_the_expected_status(url, stage):
    cells = [(key, principal) for key in ENTRIES for principal in PRINCIPALS]
    may_not = [cell for cell in cells if expected(*cell) >= 400]
    may = [cell for cell in cells if expected(*cell) < 400]
    with gateway(url) as address, httpx.Client(base_url=address, timeout=30) as api:
        before = stages.contents()
        wrong = [line for cell in may_not if (line := difference(api, stage, *cell))]
        assert not wrong, "\n".join(wrong)
        assert stages.contents() == before, "a refused call changed something"
        wrong += [line for cell in may if (line := difference(api, stage, *cell))]
    assert not wrong, "\n".join(wrong)
    assert len(may_not) > 1000


def difference(api: httpx.Client, stage: stages.Stage, key: str, principal: str) -> str | None:
    entry, status = ENTRIES[key], expected(key, principal)
    answer = request(api, key.split()[0], entry.path, entry.body, PRINCIPALS[principal], stage)
    if answer.status_code == status:
        return None
    return f"{key} for {principal}: {answer.status_code}, not {status}: {answer.text[:200]}"


def test_revoked_access_is_refused_from_the_next_call(url, stage):
    """The environments have just served the same call."""
    with gateway(url) as address, httpx.Client(base_url=address, timeout=30) as api:

        def status(key: str, principal: str, **names: str) -> int:
            entry, own = ENTRIES[key], stages.Stage({**stage.names, **names}, stage.tokens)
            return request(api, key.split()[0], entry.path, entry.body, PRINCIPALS[principal], own).status_code

        device, latest = "POST /v1/heartbeat", "GET /v1/apk/download/latest"
        tokens = api_tokens(api, stage)
        assert status(device, "a device") == 200
        assert status("DELETE /v1/devices/{device_id}", "an operator", spare_device=stage.names["device"]) == 204
        assert status(device, "a device") == 410
        assert status(latest, "a download token in the query") == 302
        assert status("DELETE /v1/enroll-tokens/{token_id}", "an operator", spare_token=tokens["apk_download"]) == 204
        assert status(latest, "a download token in the query") == 401
        assert status("POST /v1/register", "a register token") == 200
        assert status("DELETE /v1/enroll-tokens/{token_id}", "an operator", spare_token=tokens["register"]) == 204
        assert status("POST /v1/register", "a register token") == 401


def api_tokens(api: httpx.Client, stage: stages.Stage) -> dict[str, str]:
    """{scope: token_id} of the valid tokens."""
    listed = request(api, "GET", "/v1/enroll-tokens", None, PRINCIPALS["an operator"], stage).json()["items"]
    good = [token for token in listed if (token["alias"], token["status"]) == ("newcomer", "active")]
    return {token["scope"]: token["token_id"] for token in good}
