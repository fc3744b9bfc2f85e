"""Each function may do what it asks of AWS, and nothing else: its role against the calls that were written down."""

from collections import defaultdict
from pathlib import Path

from local.template import Node

# What SAM attaches by itself, for Lambda's service: log records, network interfaces (denied to the code), traces.
FOR_LAMBDA = {"AWSLambdaBasicExecutionRole", "AWSLambdaVPCAccessExecutionRole", "AWSXrayWriteOnlyAccess"}
# Allowed without a call of the function's own that could be written down.
BESIDES = {
    "sqs:SendMessage": "Lambda's service hands a failed invocation to the dead letters as the function's role",
    "s3:ListBucket": "without it S3 answers 403 for an upload that is not there, and not 404",
}


def recorded(path: Path) -> dict[str, set[str]]:
    """{function: the actions that it asked for}, of the file that tests/support/aws_calls writes."""
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
        wrong += [f"{name} asks for {action}, which its role does not allow" for action in sorted(asked - allowed)]
        wrong += [
            f"{name} may do {action}, which it was not seen to ask for"
            for action in sorted(allowed - asked)
            if action not in BESIDES
        ]
    wrong += [f"{name} asks for something and is no function" for name in sorted(set(calls) - functions)]
    return count, wrong


def allowed_to(resources: Node, function: str) -> tuple[set[str], list[str]]:
    """The actions that the function's role allows, and what is wrong with its policies."""
    role = resources[f"{function}Role"]["Properties"]
    documents, wrong = [], []
    for policy in role.get("Policies", []):
        policy = policy["Fn::If"][1] if "Fn::If" in policy else policy
        documents.append(policy["PolicyDocument"])
    for arn in role["ManagedPolicyArns"]:
        if isinstance(arn, dict):
            documents.append(resources[arn["Ref"]]["Properties"]["PolicyDocument"])
        elif arn.rpartition("/")[2] not in FOR_LAMBDA:
            wrong.append(f"{function} has AWS's policy {arn}")
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
