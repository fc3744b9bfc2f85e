"""Alarms and the dashboard name existing metrics: those that the code emits, and those of AWS with AWS's names."""

import json
import re

import pytest
from nexmdm.commands import queue
from nexmdm.runtime import metrics

from functions.cleanup import handler as cleanup
from functions.watch import handler as watch
from local import template
from tests.support.api import CONTEXT, ROOT, call
from tests.support.commands import enrolled, make_due, send, sweep
from tests.template.rules import functions, of_type, walk

AWS_METRICS = {
    "AWS/ApiGateway": {"Count", "4xx", "5xx", "Latency", "IntegrationLatency", "DataProcessed"},  # HTTP APIs
    "AWS/Lambda": {"Invocations", "Errors", "Throttles", "Duration", "ConcurrentExecutions"},
    "AWS/SQS": {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"},
    "AWS/RDS": {"DatabaseConnections", "ServerlessDatabaseCapacity", "ACUUtilization"},
}
EXPECTED_DIMENSIONS = {"AWS/ApiGateway": "ApiId", "AWS/Lambda": "FunctionName", "AWS/SQS": "QueueName"}


def named(document) -> set[tuple[str, str]]:
    """The (namespace, metric) pairs of every alarm and of the dashboard."""
    found = {
        (node["Namespace"], node["MetricName"])
        for node in walk(document["Resources"])
        if isinstance(node, dict) and "MetricName" in node and "Namespace" in node
    }
    (dashboard,) = of_type(document, "AWS::CloudWatch::Dashboard").values()
    body = re.sub(r"\$\{[\w:.]+\}", "x", dashboard["Properties"]["DashboardBody"]["Fn::Sub"])
    for widget in json.loads(body)["widgets"]:
        namespace = None
        for metric in widget["properties"].get("metrics", []):
            namespace = metric[0] if metric[0] != "." else namespace
            found.add((namespace, metric[1]))
    return found


@pytest.fixture
def emitted(db, fake_fcm, capsys) -> dict[str, set[str]]:
    """What the code emits in a day, as {metric: its dimensions}."""
    metrics._metrics.cache_clear()
    device_id, _ = enrolled("lobby", "fcm:lobby")
    send(device_id, "first")
    send(device_id, "first")  # a repeated request
    call("POST", "/v1/commands", {"action": "ping", "request_id": "many", "filter": {"all": True}})
    for state, fence in (("sending", 1), ("accepted", 0)):
        db.execute(
            "INSERT INTO fcm_dispatches"
            " (request_id, device_id, action, payload_hash, state, fence, lease_until, created_at, expires_at)"
            " VALUES (%(s)s, %(d)s, 'ping', 'h', %(s)s, %(f)s, CASE WHEN %(f)s = 1 THEN now() - interval '1 s' END,"
            " now() - interval '2 s', now() - interval '1 s')",
            {"s": state, "d": device_id, "f": fence},
        )
    sweep()
    for outcome in ("failed", "retry_wait", "unknown", "sent"):
        queue._count(queue.Result(outcome=outcome, fcm_status="", latency_ms=1))
    metrics.flush()
    make_due(db)
    cleanup.handler({}, CONTEXT)
    watch.handler({}, CONTEXT)
    found: dict[str, set[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if '"_aws"' in line:
            for block in json.loads(line)["_aws"]["CloudWatchMetrics"]:
                assert block["Namespace"] == metrics.NAMESPACE
                for metric in block["Metrics"]:
                    found[metric["Name"]] = set(block["Dimensions"][0])
    metrics._metrics.cache_clear()
    return found


def test_project_metrics_are_emitted_with_the_dimension_of_the_alarm(document, emitted):
    ours = {metric for namespace, metric in named(document) if namespace == metrics.NAMESPACE}
    assert ours - emitted.keys() == set()
    assert {"DispatchUnknown", "OldestOpenDispatchAge", "CleanupSucceeded", "IdempotencyHit", "WatchSucceeded"} <= ours
    assert {name: emitted[name] for name in ours} == {name: {"service"} for name in ours}


def test_aws_metrics_have_the_names_and_dimensions_of_aws(document):
    for namespace, metric in named(document):
        assert namespace in (*AWS_METRICS, metrics.NAMESPACE)
        assert metric in AWS_METRICS.get(namespace, {metric}), f"{namespace} has no {metric}"
    for node in walk(document["Resources"]):
        if isinstance(node, dict) and "MetricName" in node and node["Namespace"] in EXPECTED_DIMENSIONS:
            assert [d["Name"] for d in node["Dimensions"]] == [EXPECTED_DIMENSIONS[node["Namespace"]]]
        if isinstance(node, dict) and node.get("Namespace") == metrics.NAMESPACE:
            assert node["Dimensions"] == [{"Name": "service", "Value": {"Ref": "AWS::StackName"}}]


def counted(document, suffix: str) -> dict[str, list[str]]:
    """{alarm: functions that it counts} for the alarms whose names end in `suffix`."""
    found = {}
    for name, alarm in of_type(document, "AWS::CloudWatch::Alarm").items():
        if name.endswith(suffix):
            # A function that exists under a condition has its metric under the same condition.
            metrics = [metric.get("Fn::If", [None, metric])[1] for metric in alarm["Properties"]["Metrics"]]
            found[name] = [
                metric["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Ref"]
                for metric in metrics
                if "MetricStat" in metric
            ]
    return found


def test_every_function_is_counted_once_for_throttles_and_errors(document):
    for suffix in ("FunctionsThrottled", "FunctionsFailing"):
        every = [function for functions_ in counted(document, suffix).values() for function in functions_]
        # A failure of `migrate` is reported by the deploy itself.
        assert sorted(every) == sorted(set(functions(document)) - {"MigrateFunction"})


def test_alarm_counts_the_functions_in_its_name(document):
    open_ = {route.function.logical_id for route in template.load().routes if route.authorizer == "NONE"}
    signed = {route.function.logical_id for route in template.load().routes if route.authorizer == "AWS_IAM"}
    for suffix in ("FunctionsThrottled", "FunctionsFailing"):
        alarms = {name.removesuffix(suffix): set(functions_) for name, functions_ in counted(document, suffix).items()}
        assert alarms.keys() == {"Device", "Operator", "Scheduled"}
        assert (alarms["Device"], alarms["Operator"]) == (open_, signed)


def test_every_alarm_has_room_for_two_more_metrics_than_it_reads(document):
    """PutMetricAlarm refuses an alarm with more than ten metrics, which fails the deploy."""
    for name, alarm in of_type(document, "AWS::CloudWatch::Alarm").items():
        read = [node for node in walk(alarm["Properties"].get("Metrics", [])) if isinstance(node, dict)]
        assert sum("MetricStat" in node for node in read) <= 8, name


def test_every_alarm_has_an_action_or_is_part_of_one_that_has(document):
    composites = of_type(document, "AWS::CloudWatch::CompositeAlarm")
    rules = " ".join(alarm["Properties"]["AlarmRule"]["Fn::Sub"] for alarm in composites.values())
    topic = [{"Fn::If": ["OwnTopic", {"Ref": "AlarmTopic"}, {"Ref": "AlarmTopicArn"}]}]
    for name, alarm in {**of_type(document, "AWS::CloudWatch::Alarm"), **composites}.items():
        assert alarm["Properties"].get("AlarmActions") == topic or f"${{{name}}}" in rules, name


def test_every_alarm_describes_the_event_and_names_its_page(document):
    """For a part of a composite alarm, the composite alarm names the page."""
    text = (ROOT / "docs" / "operations.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", text, re.MULTILINE)}
    composites = of_type(document, "AWS::CloudWatch::CompositeAlarm")
    described = set()
    for name, alarm in {**of_type(document, "AWS::CloudWatch::Alarm"), **composites}.items():
        what, _, place = alarm["Properties"]["AlarmDescription"].rpartition(": docs/operations.md#")
        assert what, name
        wholes = [
            whole for whole, one in composites.items() if f"${{{name}}}" in one["Properties"]["AlarmRule"]["Fn::Sub"]
        ]
        assert place == (wholes or [name])[0].lower(), name
        described.add(place)
    assert described == headings


def test_stack_counts_only_its_own_metrics():
    assert "POWERTOOLS_SERVICE_NAME" not in template.load().function("heartbeat").environment
