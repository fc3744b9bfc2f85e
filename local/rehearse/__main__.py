"""The rehearsal of a deploy: `python -m local.rehearse --calls FILE`, after the simulations that `make rehearse` has
run.

Expands the template, checks it for every combination of parameters, and prints what was covered and what only AWS can
tell. Exits with 1 and one line per finding.
"""

import argparse
import sys
from pathlib import Path

from nexmdm.runtime import endpoints

from local.rehearse import expand, limits, network, permissions, references, routes
from local.rehearse.conditions import combinations
from local.template import Node

# docs/deploy.md has the same list, and a test compares both.
ONLY_AWS_CAN_TELL = (
    "a deploy itself: the order and duration of resource creation, quotas, whether a resource name is free and an"
    " engine version is still offered",
    "how IAM evaluates the policies and trust policies, and how long a new one takes to become effective",
    "IAM logins with the real RDS and through RDS Proxy, and that the RDS administrator may grant `rds_iam`: the"
    " rehearsal's PostgreSQL 16 follows the rules in the RDS documentation",
    "that FCM, Google's OAuth, Secrets Manager and SNS can be reached over IPv6 from the VPC, as their documentation"
    " says",
    "creating a database from a snapshot, and how long a paused one takes to resume",
    "deliveries of EventBridge Scheduler, SNS and CloudWatch alarms, and real Slack and Discord",
    "arm64: artifacts for it are built and inspected, but those that run locally are built for the local processor",
    "what AWS charges",
)
SERVICES = {"rds-db": "rds"}  # the IAM action of a login is a call to the database itself


def rehearse(document: Node, calls: dict[str, set[str]]) -> tuple[list[str], list[str]]:
    """Returns (lines about what was covered, findings)."""
    parameters, truths = combinations(document)
    checks = [
        (f"references in {parameters:,} combinations of parameters, {len(truths):,} of conditions", "references"),
        ("limits of AWS's services", "limits"),
        ("actions that functions request or are allowed", "actions"),
        ("functions' routes to database, S3 and internet, each in every combination", "ways"),
        ("routes, from the API to the handler", "routes"),
        ("AWS hosts, by their documented names", "hosts"),
    ]
    found = {
        "references": references.check(document, truths),
        "limits": limits.check(document),
        "actions": permissions.check(document, calls),
        "ways": network.check(document, truths, calls),
        "routes": routes.check(document),
        "hosts": _hosts(calls),
    }
    covered = [f"{found[name][0]:7,}  {what}" for what, name in checks]
    return covered, [f"{name}: {line}" for name, (_, lines) in found.items() for line in lines]


def _hosts(calls: dict[str, set[str]]) -> tuple[int, list[str]]:
    asked = {action.partition(":")[0] for actions in calls.values() for action in actions}
    missing = sorted(service for service in asked if SERVICES.get(service, service) not in endpoints.NAMES)
    return len(asked), [
        f"{service} is called but has no documented name in nexmdm.runtime.endpoints" for service in missing
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.rehearse", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=Path, required=True, help="the calls recorded by the simulations")
    calls = permissions.recorded(parser.parse_args().calls)
    covered, findings = rehearse(expand.expanded(), calls)
    print("covered:", *covered, sep="\n")
    played = "create, update, delete and failures of the schema's custom resource; every function's sample events"
    print(f"simulated: {played}, built, on a PostgreSQL 16 with RDS's rules")
    print("only AWS can tell:", *(f"  * {line}" for line in ONLY_AWS_CAN_TELL), sep="\n")
    if findings:
        sys.exit("\n".join(["findings:", *findings]))


if __name__ == "__main__":
    main()
