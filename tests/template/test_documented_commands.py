"""The AWS CLI commands in the documents name existing services, operations and options, according to botocore's
models."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.model import OperationModel

from tests.support.api import ROOT

OF_ARNS = {"AWS::SecretsManager::Secret", "AWS::SNS::Topic", "AWS::RDS::DBCluster"}
DEPLOY = ROOT / "docs" / "deploy.md"
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])
# Options of the CLI itself, which every operation accepts.
GLOBAL = {"query", "output", "region", "profile", "cli-binary-format", "cli-read-timeout", "no-cli-pager"}
# Commands that only the CLI has, with their options.
CUSTOM = {
    ("configure", "export-credentials"): {"format"},
    ("sso", "login"): {"profile"},
    ("logs", "tail"): {"since", "follow"},
    ("rds", "generate-db-auth-token"): {"hostname", "port", "username"},
    ("cloudformation", "wait"): {"stack-name"},
}


def commands(text: str) -> list[list[str]]:
    found = []
    for match in re.finditer(r"\baws ((?:[a-z0-9-]+) (?:[a-z0-9-]+)(?:\\\\\n|[^\n`|)])*)", text.replace("\\\n", " ")):
        try:
            found.append(shlex.split(match[1], comments=True))
        except ValueError:  # it ends inside a quotation: a query with a bar or a parenthesis
            found.append(match[1].split())
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_aws_cli_commands_are_valid(document: Path):
    session = botocore.session.Session()
    services = set(session.get_available_services()) | {"configure", "sso"}
    for words in commands(document.read_text()):
        service, operation = words[0], words[1]
        if service not in services:
            continue  # prose about AWS, not a command
        options = {word[2:].partition("=")[0] for word in words[2:] if word.startswith("--")} - GLOBAL
        if (service, operation) in CUSTOM:
            assert options <= CUSTOM[service, operation], words
            continue
        model = session.get_service_model(service)
        by_name = {xform_name(name, "-"): name for name in model.operation_names}
        assert operation in by_name, f"aws {service} {operation}: {words}"
        shape: OperationModel = model.operation_model(by_name[operation])
        known = {xform_name(member, "-") for member in shape.input_shape.members}
        known |= {f"no-{name}" for name in known}
        # Options whose names differ between the CLI and the API.
        known |= {"notification-endpoint"} if (service, operation) == ("sns", "subscribe") else set()
        assert options <= known, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_payload_is_passed_as_raw_text(document: Path):
    """Version 2 of the CLI reads a payload as base64 unless an option says otherwise."""
    for words in commands(document.read_text()):
        if "--payload" in words:
            assert "--cli-binary-format" in words, words


def test_documented_commands_are_found():
    every = [words for document in DOCUMENTS for words in commands(document.read_text())]
    assert len(every) > 15
    assert ["lambda", "invoke"] in [words[:2] for words in every]


def test_sam_local_gets_a_value_for_each_resource_reference(document: dict[str, Any]):
    """SAM puts a resource's logical name where the template refers to its ARN, which is no secret and no topic."""
    shown = json.loads(re.search(r"^\{\"Parameters\": \{.*?\}\}$", DEPLOY.read_text(), re.M | re.S)[0])["Parameters"]
    secrets_and_topics = {
        name
        for resource in document["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
        for name, value in resource["Properties"].get("Environment", {}).get("Variables", {}).items()
        if isinstance(value, dict) and refers_to(document, value) in OF_ARNS
    } - {"DATABASE_HOST"}  # DATABASE_URL is read instead
    assert {"FCM_SERVICE_ACCOUNT", "COMMAND_HMAC_KEY"} <= secrets_and_topics
    assert secrets_and_topics <= shown.keys()


def refers_to(document: dict[str, Any], value: dict[str, Any]) -> str | None:
    name = value.get("Ref") or str(value.get("Fn::GetAtt", "")).strip("['").partition(".")[0].partition("'")[0]
    return document["Resources"].get(name, {}).get("Type")
