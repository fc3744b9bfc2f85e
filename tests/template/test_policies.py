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

# Viewer is every GET. Exactly one of those has an effect: GET /v1/apk/builds/{id}/download writes down who was given
# the address, and a build is what every device has anyway. No GET answers a secret: tokens are listed without theirs.
# What a shell answered is for operators: GET /v1/commands/{request_id}/result is denied.
READS = {route.key for route in OPERATORS if route.method == "GET"} - {"GET /v1/commands/{request_id}/result"}
MAY: dict[str, set[str]] = {
    "ViewerPolicy": READS,
    "OperatorPolicy": {route.key for route in OPERATORS},
    "CiPolicy": {
        "POST /v1/apk/builds",
        "POST /v1/apk/builds/{build_id}/complete",
        "GET /v1/apk/builds/{build_id}/download",
    },
}


def allowed(document: dict[str, Any], policy: str, route: Route) -> bool:
    """As IAM decides, whose * reaches over slashes."""
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
    assert "[" not in text  # fnmatch would read it, IAM does not
    return text


def test_these_are_the_policies(document):
    assert set(of_type(document, "AWS::IAM::ManagedPolicy")) >= set(MAY)


@pytest.mark.parametrize("policy", MAY)
def test_a_policy_allows_its_routes_and_no_others(document, policy):
    assert {route.key for route in OPERATORS if allowed(document, policy, route)} == MAY[policy]


def test_nobody_but_an_operator_gets_at_secrets_or_devices(document):
    """Enrollment tokens are made, commands are sent and builds are rolled out by nobody else."""
    for policy in ("ViewerPolicy", "CiPolicy"):
        for route in OPERATORS:
            if route.method != "GET" and route.key not in MAY["CiPolicy"]:
                assert not allowed(document, policy, route), (policy, route.key)
