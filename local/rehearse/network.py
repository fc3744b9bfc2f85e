"""The network path from a function to its targets: security groups on both sides, a route, and S3's endpoint policy."""

from typing import Any

from local.rehearse.conditions import Truth
from local.rehearse.permissions import allowed_to
from local.template import Node

POSTGRES, HTTPS = 5432, 443


def check(document: Node, truths: set[Truth], calls: dict[str, set[str]]) -> tuple[int, list[str]]:
    wrong: set[str] = set()
    count = 0
    for truth in truths:
        resources = _present(document["Resources"], truth)
        for name, each in resources.items():
            if each["Type"] != "AWS::Lambda::Function":
                continue
            properties = _chosen(each["Properties"], truth)
            network = properties.get("VpcConfig")
            if network is None:  # outside the VPC: the internet can be reached, the database cannot
                if any(action.startswith("rds-db:") for action in calls.get(name, ())):
                    wrong.add(f"{name} is outside the VPC but logs in to the database")
                continue
            count += 1
            [group] = [each["Ref"] for each in network["SecurityGroupIds"]]
            for target in _databases(properties):
                for start, end in _hops(target, group):
                    if not (_lets_out(resources, start, end) and _lets_in(resources, start, end)):
                        wrong.add(f"{name} cannot reach {target}: {start} to {end} on {POSTGRES} ({_name(truth)})")
            if "OwnNetwork" in truth:
                wrong |= _ways_out(resources, name, group, calls.get(name, set()), truth)
    return count, _once(wrong)


def _once(wrong: set[str]) -> list[str]:
    """Each finding once, with the shortest combination that causes it."""
    found: dict[str, list[str]] = {}
    for finding in sorted(wrong, key=lambda text: (len(text), text)):
        found.setdefault(finding.partition(" (")[0], []).append(finding)
    return [
        first if not others else f"{first} and in {len(others)} more combinations" for first, *others in found.values()
    ]


def _databases(properties: Node) -> list[str]:
    host = properties["Environment"]["Variables"].get("DATABASE_HOST", {})
    return [host["Fn::GetAtt"].partition(".")[0]] if "Fn::GetAtt" in host else []


def _hops(target: str, group: str) -> list[tuple[str, str]]:
    if target == "DatabaseCluster":
        return [(group, "DatabaseSecurityGroup")]
    return [(group, "DatabaseProxySecurityGroup"), ("DatabaseProxySecurityGroup", "DatabaseSecurityGroup")]


def _lets_out(resources: Node, start: str, end: str) -> bool:
    rules = [*resources[start]["Properties"].get("SecurityGroupEgress", [])]
    rules += [
        each["Properties"]
        for each in resources.values()
        if each["Type"] == "AWS::EC2::SecurityGroupEgress" and each["Properties"]["GroupId"] == {"Ref": start}
    ]
    return any(_covers(rule, POSTGRES) and rule.get("DestinationSecurityGroupId") == {"Ref": end} for rule in rules)


def _lets_in(resources: Node, start: str, end: str) -> bool:
    rules = [*resources[end]["Properties"].get("SecurityGroupIngress", [])]
    rules += [
        each["Properties"]
        for each in resources.values()
        if each["Type"] == "AWS::EC2::SecurityGroupIngress" and each["Properties"]["GroupId"] == {"Ref": end}
    ]
    return any(_covers(rule, POSTGRES) and rule.get("SourceSecurityGroupId") == {"Ref": start} for rule in rules)


def _ways_out(resources: Node, name: str, group: str, asked: set[str], truth: Truth) -> set[str]:
    wrong = set()
    out = resources[group]["Properties"]["SecurityGroupEgress"]
    for family, everywhere in (("CidrIpv6", "::/0"), ("CidrIp", "0.0.0.0/0")):
        if not any(_covers(rule, HTTPS) and rule.get(family) == everywhere for rule in out):
            wrong.add(f"{group} allows no traffic to {everywhere}")
    routes = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::EC2::Route"]
    table = {"Ref": "RouteTable"}
    by_ipv6 = any(
        route["RouteTableId"] == table and route.get("DestinationIpv6CidrBlock") == "::/0" for route in routes
    )
    by_nat = any(route["RouteTableId"] == table and "NatGatewayId" in route for route in routes)
    if not by_ipv6 and not by_nat:
        wrong.add(f"{name} has no route to the internet ({_name(truth)})")
    if "WithNat" in truth and not by_nat:
        wrong.add("Egress=nat creates no route through the NAT gateway")
    endpoint = _chosen(resources["S3Endpoint"]["Properties"], truth)
    if table not in endpoint["RouteTableIds"]:
        wrong.add("S3's endpoint is not in the functions' route table")
    open_ = {
        action
        for statement in endpoint["PolicyDocument"]["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    # Actions that the role does not allow in this combination are not requested in it, such as an export that is off.
    of_s3 = {action for action in asked if action.startswith("s3:")}
    for action in sorted(of_s3 & _allowed(resources, name, truth) if of_s3 - open_ else ()):
        if action not in open_:
            wrong.add(f"{name} requests {action}, which S3's endpoint does not allow ({_name(truth)})")
    return wrong


def _allowed(resources: Node, name: str, truth: Truth) -> set[str]:
    role = f"{name}Role"
    return allowed_to({**resources, role: _chosen(resources[role], truth)}, name)[0]


def _covers(rule: Node, port: int) -> bool:
    return bool(rule["IpProtocol"] == "tcp" and rule["FromPort"] <= port <= rule["ToPort"])


def _present(resources: Node, truth: Truth) -> Node:
    return {name: each for name, each in resources.items() if "Condition" not in each or each["Condition"] in truth}


def _chosen(node: Any, truth: Truth) -> Any:
    """The value with every Fn::If resolved and without AWS::NoValue."""
    if isinstance(node, list):
        return [value for each in node if (value := _chosen(each, truth)) is not None]
    if not isinstance(node, dict):
        return node
    if set(node) == {"Fn::If"}:
        condition, then, otherwise = node["Fn::If"]
        return _chosen(then if condition in truth else otherwise, truth)
    if node == {"Ref": "AWS::NoValue"}:
        return None
    return {key: value for key, each in node.items() if (value := _chosen(each, truth)) is not None}


def _name(truth: Truth) -> str:
    return ", ".join(sorted(truth)) or "no condition"
