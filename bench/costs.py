"""The monthly cost of a stack and the cost of a million heartbeats: `python -m bench.costs` prints the tables of
docs/costs.md.

Prices and sizes are from bench/prices.toml; the numbers of resources are from template.yaml.
"""

import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from local import template
from local.rehearse.conditions import by_default
from local.template import Node

# prices.toml, by service.
Prices: TypeAlias = dict[str, Any]
MONTH_SECONDS, MONTH_HOURS = 30 * 86_400, 730
FLEETS = (100, 1_000, 10_000)
INTERVAL, COMMANDS = 600, 4  # seconds between heartbeats; commands per device and day, each acknowledged once
MEMORY_GB = 0.25


@cache
def prices() -> Prices:
    return tomllib.loads((Path(__file__).parent / "prices.toml").read_text())


def tables() -> Iterator[str]:
    """Lines of Markdown, with an empty line between two tables."""
    yield from _fleets()
    yield ""
    yield from _fixed()
    yield ""
    yield from _million()
    yield ""
    yield from _options()


def nat_month() -> float:
    """A NAT gateway with its public IP address, without traffic."""
    return float(MONTH_HOURS * (prices()["nat"]["hour"] + prices()["nat"]["public_ipv4_hour"]))


def requests(devices: float) -> float:
    """Millions of requests per month."""
    return devices * (MONTH_SECONDS / INTERVAL + 30 * 2 * COMMANDS) / 1e6


def record_bytes(*, former: bool = False, sample: int = 1) -> float:
    """The bytes that CloudWatch counts per heartbeat: the function's record and the gateway's. Formerly the function's
    record was written by Powertools, and Lambda wrote three more in text format.

    Args:
        sample: HeartbeatLogSample.
    """
    sizes, measured = prices()["documented"], prices()["measured"]
    each = sizes["record_overhead_bytes"]
    gateway = sizes["access_record_bytes"] + each
    if former:
        return float(gateway + measured["former_record_bytes"] + each + sizes["platform_record_bytes"] + 3 * each)
    return float(gateway + (measured["heartbeat_record_bytes"] + each) / sample)


def million_heartbeats(*, former: bool = False, sample: int = 1) -> dict[str, float]:
    """USD by part."""
    p = prices()
    gb = record_bytes(former=former, sample=sample) / 1000
    seconds = p["assumed"]["handler_seconds"]
    return {
        "HTTP API": p["http_api"]["million_requests"],
        "Lambda": p["lambda"]["million_requests"] + seconds * 1e6 * MEMORY_GB * p["lambda"]["gb_second"],
        "logs, ingested": gb * p["logs"]["ingested_gb"],
        "logs, stored": gb * p["logs"]["stored_gb_month"] * p["assumed"]["log_retention_months"],
        "Aurora I/O": p["assumed"]["io_per_heartbeat"] * p["aurora"]["million_io"],
    }


def month(devices: float) -> dict[str, float]:
    """USD by part, of a prod stack with only the load of its fleet."""
    p, millions = prices(), requests(devices)
    per_million = million_heartbeats()
    heartbeats = devices * MONTH_SECONDS / INTERVAL / 1e6
    stored_gb = devices * 2.25 * 86_400 / INTERVAL * p["measured"]["heartbeat_row_bytes"] / 1e9
    schedules = _scheduled(60, p["assumed"]["sweep_seconds"], 0.5) + _scheduled(
        300, p["assumed"]["watch_seconds"], MEMORY_GB
    )
    return {
        "HTTP API": millions * per_million["HTTP API"],
        "Lambda": millions * per_million["Lambda"] + schedules,
        "Aurora": 0.5 * MONTH_HOURS * p["aurora"]["unit_hour"],
        "storage, I/O": stored_gb * p["aurora"]["storage_gb_month"] + heartbeats * per_million["Aurora I/O"],
        "logs": millions * (per_million["logs, ingested"] + per_million["logs, stored"]),
        "fixed": sum(cost for _, _, cost in fixed()),
    }


def _scheduled(every: float, seconds: float, gb: float) -> float:
    runs, p = MONTH_SECONDS / every, prices()["lambda"]
    return float(runs * (seconds * gb * p["gb_second"] + p["million_requests"] / 1e6))


def fixed() -> list[tuple[str, int, float]]:
    """(what, how many, USD a month) of the fixed costs of a stack, with the parameters' defaults."""
    p, resources = prices(), _resources()
    cloudwatch = p["cloudwatch"]
    found = [
        ("secrets, the administrator's included", _count(resources, "AWS::SecretsManager::Secret") + 1,
        p["secrets"]["month"]), ("metrics that alarms read", _alarm_metrics(resources), cloudwatch["alarm_metric"]),
        ("composite alarms", _count(resources, "AWS::CloudWatch::CompositeAlarm"), cloudwatch["composite_alarm"]),
        ("metrics of our own, at most", p["assumed"]["custom_metrics"], cloudwatch["custom_metric"]), ("dashboard", 1,
        cloudwatch["dashboard"]),
    ]  # fmt: skip
    return [(what, number, number * each) for what, number, each in found]


def _resources() -> Node:
    """The resources that exist with the parameters' defaults."""
    document = template.document()
    truth = by_default(document)
    return {
        name: each
        for name, each in document["Resources"].items()
        if "Condition" not in each or each["Condition"] in truth
    }


def _count(resources: Node, kind: str) -> int:
    return sum(each["Type"] == kind for each in resources.values())


def _alarm_metrics(resources: Node) -> int:
    read = 0
    for each in resources.values():
        if each["Type"] == "AWS::CloudWatch::Alarm":
            metrics = each["Properties"].get("Metrics")
            # A conditional metric (Fn::If) belongs to a function that is off by default.
            read += 1 if metrics is None else sum("MetricStat" in metric for metric in metrics)
    return read


def _fleets() -> Iterator[str]:
    parts = list(month(FLEETS[0]))
    yield f"| devices | requests | {' | '.join(parts)} | total, USD |"
    yield "|---" * (len(parts) + 3) + "|"
    for devices in FLEETS:
        costs = month(devices)
        cells = " | ".join(_usd(costs[part]) for part in parts)
        yield f"| {devices:,} | {requests(devices):.2g} M | {cells} | {_usd(sum(costs.values()))} |"


def _fixed() -> Iterator[str]:
    yield "| fixed | number | USD a month |"
    yield "|---|---|---|"
    for what, number, cost in fixed():
        yield f"| {what} | {number} | {cost:.2f} |"
    yield f"| total | | {sum(cost for _, _, cost in fixed()):.2f} |"


def _million() -> Iterator[str]:
    forms = ((True, 1), (False, 1), (False, 10))
    yield "| a million heartbeats | before, USD | now, USD | `HeartbeatLogSample=10`, USD |"
    yield "|---|---|---|---|"
    sizes = [record_bytes(former=former, sample=n) for former, n in forms]
    yield f"| bytes of log for each | {' | '.join(f'{size:.0f}' for size in sizes)} |"
    costs = [million_heartbeats(former=former, sample=n) for former, n in forms]
    for part in costs[0]:
        yield f"| {part} | {' | '.join(f'{cost[part]:.2f}' for cost in costs)} |"
    yield f"| total | {' | '.join(f'{sum(cost.values()):.2f}' for cost in costs)} |"


def _options() -> Iterator[str]:
    p = prices()
    proxy = p["rds_proxy"]["least_units"] * p["rds_proxy"]["unit_hour"] * MONTH_HOURS
    yield "| besides, when it is used | USD |"
    yield "|---|---|"
    nat, apk = p["nat"]["gb"], p["transfer"]["internet_gb"]
    secret, alarms = p["secrets"]["month"], 2 * p["cloudwatch"]["alarm_metric"]
    yield f"| `Egress=nat`: a NAT gateway and its public address | {nat_month():.1f} a month and {nat} per GB |"
    yield f"| `DatabaseProxy=on`, at the least | {proxy:.1f} a month |"
    yield f"| `DatabaseStandby=on`, at rest | {0.5 * MONTH_HOURS * p['aurora']['unit_hour']:.1f} a month |"
    posts = "`Webhook=on` or `NotificationRoutes=on`: a secret each, and two alarm metrics"
    yield f"| {posts} | {secret + alarms:.2f} a month |"
    yield f"| APKs to devices: 50 MB to 10,000 | {0.05 * 10_000 * apk:.0f} ({apk} per GB) |"


def _usd(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def main() -> None:
    print(*tables(), sep="\n")


if __name__ == "__main__":
    main()
