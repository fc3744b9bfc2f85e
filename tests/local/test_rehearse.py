"""Each check of the rehearsal finds the defect it is for, and finds none in the template as it is, without AWS."""

import copy
import re
from typing import Any

import pytest

from local import template
from local.rehearse import limits, network, permissions, references
from local.rehearse.__main__ import ONLY_AWS_CAN_TELL, _hosts
from local.rehearse.conditions import CHOICES, Truth, combinations, parameters_of_conditions
from tests.support.api import ROOT


@pytest.fixture
def document() -> dict[str, Any]:
    """The template before SAM turns the functions' events into resources, which have other dependencies."""
    made = copy.deepcopy(template.document())
    for resource in made["Resources"].values():
        resource.get("Properties", {}).pop("Events", None)
    return made


@pytest.fixture(scope="module")
def every() -> tuple[int, set[Truth]]:
    """What `combinations` finds, once for all tests: none changes a condition."""
    return combinations(template.document())


@pytest.fixture(scope="module")
def truths(every) -> set[Truth]:
    return every[1]


def test_every_parameter_of_a_condition_is_varied(document):
    assert parameters_of_conditions(document) == set(CHOICES)
    for name, values in CHOICES.items():
        parameter = document["Parameters"][name]
        assert set(values) <= set(parameter.get("AllowedValues", values)), name


def test_all_combinations_are_checked(every):
    count, truths = every
    assert count == 2 ** len(CHOICES)
    # With an existing VPC there is no choice of egress.
    assert len(truths) == 2 ** (len(CHOICES) - 2) * 3
    assert not any("WithNat" in truth and "OwnNetwork" not in truth for truth in truths)


def test_template_has_no_dangling_reference(document, truths):
    count, wrong = references.check(document, truths)
    assert (count > 200, wrong) == (True, [])


def test_dangling_reference_is_found(document, truths):
    document["Resources"]["ApkBucketPolicy"]["Properties"]["Bucket"] = {"Ref": "NoBucket"}
    assert "ApkBucketPolicy refers to NoBucket" in "".join(references.check(document, truths)[1])


def test_reference_to_a_conditional_resource_is_found(document, truths):
    document["Outputs"]["ApkBucketName"]["Value"] = {"Fn::Sub": "${ExportBucket.Arn}/x"}
    [wrong] = references.check(document, truths)[1]
    assert wrong == "output ApkBucketName refers to ExportBucket (always), which exists only if WithExport"


def test_condition_on_the_path_of_a_reference_is_respected(document, truths):
    value = {"Fn::If": ["WithExport", {"Ref": "ExportBucket"}, "none"]}
    document["Outputs"]["ApkBucketName"]["Value"] = value
    assert references.check(document, truths)[1] == []
    value["Fn::If"] = ["WithExport", "none", {"Ref": "ExportBucket"}]
    [wrong] = references.check(document, truths)[1]
    assert "WithExport is False" in wrong


def test_circular_dependency_is_found(document, truths):
    document["Resources"]["ApkBucket"]["DependsOn"] = ["ApkBucketPolicy"]
    [wrong] = references.check(document, truths)[1]
    assert re.search(r"wait for each other: .*ApkBucket", wrong)


def test_alarm_with_eleven_metrics_is_found(document):
    alarm = document["Resources"]["DeviceFunctionsThrottled"]["Properties"]
    alarm["Metrics"] += [alarm["Metrics"][1]] * 10
    assert any("DeviceFunctionsThrottled: metrics" in line for line in limits.check(document)[1])


AWS = "arn:aws:iam::aws:policy"
ROLE = {
    "Resources": {
        "WatchFunction": {"Type": "AWS::Lambda::Function"},
        "WatchFunctionRole": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "ManagedPolicyArns": [f"{AWS}/service-role/AWSLambdaBasicExecutionRole", {"Ref": "App"}],
                "Policies": [
                    {"PolicyDocument": {"Statement": [{"Effect": "Allow", "Action": "sns:Publish", "Resource": "t"}]}}
                ],
            },
        },
        "App": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "PolicyDocument": {
                    "Statement": [
                        {"Effect": "Allow", "Action": "rds-db:connect", "Resource": {"Fn::Sub": "arn:x/nexmdm_app"}},
                        {"Effect": "Deny", "Action": "logs:CreateLogGroup", "Resource": "*"},
                    ]
                }
            },
        },
    }
}  # fmt: skip
ASKED = {"sns:Publish", "rds-db:connect/nexmdm_app"}


def test_role_with_exactly_the_needed_rights_passes():
    assert permissions.check(ROLE, {"WatchFunction": ASKED})[1] == []


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({*ASKED, "s3:PutObject"}, "WatchFunction requests s3:PutObject, which its role does not allow"),
        ({*ASKED, "rds-db:connect/nexmdm_owner"}, "requests rds-db:connect/nexmdm_owner, which"),
        ({"sns:Publish"}, "WatchFunction is allowed rds-db:connect/nexmdm_app, which it was not observed to request"),
    ],
)
def test_role_with_missing_or_surplus_rights_is_found(asked: set[str], wrong: str):
    [found] = permissions.check(ROLE, {"WatchFunction": asked})[1]
    assert wrong in found


def test_aws_managed_policy_is_found():
    document = copy.deepcopy(ROLE)
    arns = document["Resources"]["WatchFunctionRole"]["Properties"]["ManagedPolicyArns"]
    arns.append(f"{AWS}/AdministratorAccess")
    [found] = permissions.check(document, {"WatchFunction": ASKED})[1]
    assert "AdministratorAccess" in found


def as_functions(document: dict[str, Any]) -> dict[str, Any]:
    """The template's functions with the properties of Globals and with their roles, as SAM adds them."""
    for name, resource in [*document["Resources"].items()]:
        if resource["Type"] == "AWS::Serverless::Function":
            policies = [policy for policy in resource["Properties"].get("Policies", []) if "Statement" in policy]
            document["Resources"][f"{name}Role"] = {
                "Type": "AWS::IAM::Role",
                "Properties": {"ManagedPolicyArns": [], "Policies": [{"PolicyDocument": each} for each in policies]},
            }
            resource["Type"] = "AWS::Lambda::Function"
            common = document["Globals"]["Function"]
            own = resource["Properties"]
            variables = common["Environment"]["Variables"] | own.get("Environment", {}).get("Variables", {})
            resource["Properties"] = {**common, **own, "Environment": {"Variables": variables}}
    return document


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda r: None, None),
        (lambda r: r.pop("DatabaseFromFunctions"), "cannot reach DatabaseCluster"),
        (lambda r: r.pop("FunctionsToProxy"), "cannot reach DatabaseProxyEndpoint"),
        (lambda r: r.pop("DatabaseFromProxy"), "cannot reach DatabaseProxyEndpoint"),
        (lambda r: r.pop("EgressRoute"), "has no route to the internet"),
        (lambda r: r.pop("NatRoute"), "no route through the NAT gateway"),
        (lambda r: r["S3Endpoint"]["Properties"].update(RouteTableIds=[]), "S3's endpoint is not in"),
        (lambda r: r["S3Endpoint"]["Properties"]["PolicyDocument"]["Statement"].pop(0), "s3:GetObjectVersion, which"),
        (
            lambda r: r["FunctionSecurityGroup"]["Properties"]["SecurityGroupEgress"].pop(0),
            "FunctionSecurityGroup allows no traffic to ::/0",
        ),
    ],
)
def test_blocked_network_path_is_found(document, truths, change, wrong: str | None):
    as_functions(document)
    change(document["Resources"])
    calls = {"ApkDownloadFunction": {"s3:GetObjectVersion"}}
    # `make rehearse` tries all conditions; these do not affect the network.
    elsewhere = {"IsProd", "OwnTopic", "Pauses", "Reserves", "Restored", "SchedulesOn", "WithStandby"}
    _, found = network.check(document, {truth - elsewhere for truth in truths}, calls)
    assert (found == []) if wrong is None else any(wrong in line for line in found), found[:3]


def test_service_without_a_documented_host_is_found():
    assert _hosts({"WatchFunction": {"sns:Publish", "rds-db:connect/nexmdm_app"}})[1] == []
    [found] = _hosts({"WatchFunction": {"sqs:SendMessage"}})[1]
    assert found.startswith("sqs is called")


def test_document_matches_the_output_of_the_rehearsal():
    text = " ".join((ROOT / "docs" / "deploy.md").read_text().split())
    said = text.partition("## What only AWS can tell")[2]
    for line in ONLY_AWS_CAN_TELL:
        assert f"* {line}" in said, line
    assert said.count(" * ") == len(ONLY_AWS_CAN_TELL)
