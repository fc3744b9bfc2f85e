"""The managed policies, evaluated for every route: which of viewer, operator and ci may call it."""

from fnmatch import fnmatchcase
from typing import Any

import pytest

from local import template
from local.template import Route
from tests.template.rules import of_type

API = "arn:aws:execute-api:eu-west-1:000000000000:api/$default"
ROUTES = template.load().routes
OPERATORS = [route for route in ROUTES if route.authorizer == "AWS_IAM"]

# Viewer has every GET. Exactly one of those has an effect: GET /v1/apk/builds/{id}/download records who was given the
# URL, and every device has the build anyway. No GET returns a secret: enrollment tokens are listed without theirs.
# The output of shell commands is for operators: GET /v1/commands/{request_id}/result is denied.
READS = {route.key for route in OPERATORS if route.method == "GET"} - {"GET /v1/commands/{request_id}/result"}
MAY: dict[str, set[str]] = {
    "ViewerPolicy": READS,
    "OperatorPolicy": {route.key for route in OPERATORS},
    "CiPolicy": {
        "POST /v1/apk/builds",
        "POST /v1/apk/builds/{build_id}/complete",
        "GET /v1/apk/builds/{build_id}",
        "GET /v1/apk/builds/{build_id}/installations",
        "GET /v1/apk/builds/{build_id}/download",
    },
}


def allowed(document: dict[str, Any], policy: str, route: Route) -> bool:
    """Decide as IAM does, where * also matches slashes."""
    path = "/".join("1" if part.startswith("{") else part for part in route.path.split("/"))
    decided = False
    for statement in document["Resources"][policy]["Properties"]["PolicyDocument"]["Statement"]:
        assert statement["Action"] == "execute-api:Invoke"
        assert statement.keys() == {"Effect", "Action", "Resource"}
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        if any(fnmatchcase(f"{API}/{route.method}{path}", pattern(resource)) for resource in resources):
            if statement["Effect"] == "Deny":
                return False
            decided = True
    return decided


def pattern(resource: dict[str, str]) -> str:
    text = resource["Fn::Sub"]
    values = {"AWS::Partition": "aws", "AWS::Region": "eu-west-1", "AWS::AccountId": "000000000000", "Api": "api"}
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    assert text.startswith(f"{API}/"), text
    assert "[" not in text  # fnmatch would interpret it, IAM does not
    return text


def test_policies_are_viewer_operator_and_ci(document):
    assert set(of_type(document, "AWS::IAM::ManagedPolicy")) >= set(MAY)


@pytest.mark.parametrize("policy", MAY)
def test_policy_allows_only_its_routes(document, policy):
    assert {route.key for route in OPERATORS if allowed(document, policy, route)} == MAY[policy]


def test_only_operators_can_access_secrets_or_devices(document):
    """Only operators create enrollment tokens, send commands and roll out builds."""
    for policy in ("ViewerPolicy", "CiPolicy"):
        for route in OPERATORS:
            if route.method != "GET" and route.key not in MAY["CiPolicy"]:
                assert not allowed(document, policy, route), (policy, route.key)
