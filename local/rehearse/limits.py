"""AWS's documented limits; exceeding one makes a deploy fail halfway."""

import json
import re
from collections.abc import Iterator
from typing import Any

from local.template import Node


def check(document: Node) -> tuple[int, list[str]]:
    measured = list(_measured(document))
    return len(measured), [f"{what}: {size:,} of at most {most:,}" for what, size, most in measured if size > most]


def _measured(document: Node) -> Iterator[tuple[str, int, int]]:
    resources = document["Resources"]
    yield "resources of a template", len(resources), 500
    yield "parameters of a template", len(document["Parameters"]), 200
    yield "outputs of a template", len(document["Outputs"]), 200
    yield "bytes of a template in S3", len(json.dumps(document)), 1_000_000
    for name, resource in resources.items():
        properties, kind = resource.get("Properties", {}), resource["Type"]
        if kind == "AWS::CloudWatch::Alarm":
            metrics = properties.get("Metrics", [])
            yield f"{name}: metrics of an alarm", len(re.findall('"MetricStat"', json.dumps(metrics))), 10
            yield f"{name}: characters of an alarm's description", len(properties["AlarmDescription"]), 1024
        elif kind == "AWS::Lambda::Function":
            variables = json.dumps(properties.get("Environment", {}).get("Variables", {}))
            yield f"{name}: bytes of environment variables", len(variables), 4096
            yield f"{name}: seconds of a function", properties.get("Timeout", 3), 900
            yield f"{name}: layers", len(properties.get("Layers", [])), 5
        elif kind == "AWS::IAM::ManagedPolicy":
            yield f"{name}: characters of a managed policy", _characters(properties["PolicyDocument"]), 6144
        elif kind == "AWS::IAM::Role":
            inline = sum(_characters(policy) for policy in properties.get("Policies", []))
            yield f"{name}: characters of inline policies", inline, 10_240
            yield f"{name}: managed policies of a role", len(properties.get("ManagedPolicyArns", [])), 10
        elif kind == "AWS::CloudFormation::CustomResource" or kind.startswith("Custom::"):
            yield f"{name}: seconds of a custom resource", properties.get("ServiceTimeout", 3600), 3600
            yield f"{name}: characters of a custom resource's type", len(kind), 60
        elif kind == "AWS::CloudWatch::Dashboard":
            body = re.sub(r"\$\{[\w:.]+\}", "x", properties["DashboardBody"]["Fn::Sub"])
            yield f"{name}: widgets of a dashboard", len(json.loads(body)["widgets"]), 500
    for name, parameter in document["Parameters"].items():
        yield f"{name}: characters of a parameter's description", len(parameter.get("Description", "")), 4000


def _characters(policy: Any) -> int:
    """The size that IAM counts, without white space; parts of ARNs that are filled in later count as 80 each."""
    text = re.sub(r"\s", "", json.dumps(policy))
    return len(re.sub(r'\{"(?:Ref|Fn::\w+)":[^{}]*\}', '"' + "x" * 80 + '"', text))
