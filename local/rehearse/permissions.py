"""Compares each function's role with its recorded AWS calls: the role must allow these and nothing else."""

from collections import defaultdict
from pathlib import Path

from local.template import Node

# Policies that SAM attaches for Lambda's service: log records, network interfaces (denied to the code), traces.
FOR_LAMBDA = {"AWSLambdaBasicExecutionRole", "AWSLambdaVPCAccessExecutionRole", "AWSXrayWriteOnlyAccess"}
# Allowed without a call of the function that could be recorded.
BESIDES = {
    "sqs:SendMessage": "Lambda's service sends a failed invocation to the dead letters with the function's role",
    "s3:ListBucket": "without it S3 responds with 403 instead of 404 for a missing upload",
}


def recorded(path: Path) -> dict[str, set[str]]:
    """{function: requested actions}, from the file that tests/support/aws_calls writes."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in path.read_text().splitlines():
        function, action = line.split()
        found[function].add(action)
    return found


def check(document: Node, calls: dict[str, set[str]]) -> tuple[int, list[str]]:
    resources, wrong, count = document["Resources"], [], 0
    functions = {name for name, each in resources.items() if each["Type"] == "AWS::Lambda::Function"}
    for name in sorted(functions):
        allowed, problems = allowed_to(resources, name)
        wrong += problems
        asked = calls.get(name, set())
        count += len(asked | allowed)
        wrong += [f"{name} requests {action}, which its role does not allow" for action in sorted(asked - allowed)]
        wrong += [
            f"{name} is allowed {action}, which it was not observed to request"
            for action in sorted(allowed - asked)
            if action not in BESIDES
        ]
    wrong += [f"{name} made calls but is not a function" for name in sorted(set(calls) - functions)]
    return count, wrong


def allowed_to(resources: Node, function: str) -> tuple[set[str], list[str]]:
    """The actions that the function's role allows, and problems with its policies."""
    role = resources[f"{function}Role"]["Properties"]
    documents, wrong = [], []
    for policy in role.get("Policies", []):
        policy = policy["Fn::If"][1] if "Fn::If" in policy else policy
        documents.append(policy["PolicyDocument"])
    for arn in role["ManagedPolicyArns"]:
        if isinstance(arn, dict):
            documents.append(resources[arn["Ref"]]["Properties"]["PolicyDocument"])
        elif arn.rpartition("/")[2] not in FOR_LAMBDA:
            wrong.append(f"{function} has the AWS policy {arn}")
    allowed = set()
    for statement in (each for document in documents for each in document["Statement"]):
        if statement["Effect"] != "Allow":
            continue
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        for action in actions:
            if action == "rds-db:connect":
                text = statement["Resource"]["Fn::Sub"]
                user = (text[0] if isinstance(text, list) else text).rpartition("/")[2]
                action = f"{action}/{user}"
            allowed.add(action)
    return allowed, wrong
