"""Rules for the template that cfn-lint and checkov do not check."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from nexmdm.retention import archive, export

from local import template
from tests.support.api import ROOT
from tests.template.rules import functions, of_type, walk

# Routes that are called without AWS credentials. Each authenticates a device by its token inside the function, except
# /healthz, which reveals nothing.
DEVICE_ROUTES = {
    "POST /v1/register",
    "POST /v1/heartbeat",
    "POST /v1/heartbeats",
    "POST /v1/devices/fcm-token",
    "POST /v1/devices/{device_id}/ack",
    "POST /v1/action-result",
    "POST /v1/remote-exec/ack",
    "POST /v1/apk/installation/update",
    "GET /v1/apk/download/latest",
    "GET /v1/apk/download-latest",
    "GET /v1/apk/download/{build_id}",
    "GET /v1/agent/update",
    "GET /healthz",
}
SECRETS = {"COMMAND_HMAC_KEY", "FCM_SERVICE_ACCOUNT", "DATABASE_ADMIN_SECRET", "WEBHOOK_URL", "NOTIFICATION_ROUTES"}
OUTSIDE = "NotifyFunction"  # outside the VPC, without access to the database


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def chosen(value: Any) -> Any:
    """The value when its condition holds: a secret that a parameter creates, or nothing."""
    return value["Fn::If"][1] if isinstance(value, dict) and "Fn::If" in value else value


def statements(document: dict) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, resource in document["Resources"].items():
        for node in walk(resource):
            if isinstance(node, dict) and "Effect" in node:
                yield name, node


def test_nothing_is_allowed_by_a_wildcard(document):
    for name, statement in statements(document):
        if statement["Effect"] == "Allow":
            assert "NotAction" not in statement, name
            assert "NotResource" not in statement, name
            for action in listed(statement["Action"]):
                assert "*" not in action, f"{name} allows {action}"
            for resource in listed(statement.get("Resource", [])):
                text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource
                text = text[0] if isinstance(text, list) else text
                assert text.strip() not in ("*", "arn:*"), f"{name} allows everything"
                assert not re.search(r"dbuser:\*|:secret:\*|/\*/\*", text), f"{name} allows {text}"


OWNERS = {"CleanupFunction", "MigrateFunction"}  # they create and drop tables and partitions


def login(document: dict, name: str) -> str:
    """The database user that a function's settings name."""
    variables = functions(document)[name]["Properties"].get("Environment", {}).get("Variables", {})
    return variables.get("DATABASE_USER", document["Globals"]["Function"]["Environment"]["Variables"]["DATABASE_USER"])


def test_database_login_of_a_function_matches_its_callers(document):
    """Unauthenticated callers reach only device functions, never those of operators or schedules."""
    callers: dict[str, set[str]] = {}
    for route in template.load().routes:
        callers.setdefault(route.function.logical_id, set()).add(route.authorizer)
    for name in set(functions(document)) - {OUTSIDE}:
        assert callers.get(name) != {"NONE", "AWS_IAM"}, f"{name} serves devices and operators with one login"
        expected = "nexmdm_device" if callers.get(name) == {"NONE"} else "nexmdm_app"
        assert login(document, name) == ("nexmdm_owner" if name in OWNERS else expected), name


def test_every_function_has_its_own_role_that_may_log_in_only_as_its_user(document):
    accesses = {"nexmdm_device": "DeviceAccess", "nexmdm_app": "AppAccess", "nexmdm_owner": "OwnerAccess"}
    for name, function in functions(document).items():
        assert "Role" not in function["Properties"], f"{name} shares a role"
        policies = function["Properties"]["Policies"]
        # SAM gives every role the network interfaces that Lambda needs, including the role outside the VPC.
        assert {"Ref": "DeniedToFunctions"} in policies, name
        given = {access for access in accesses.values() if {"Ref": access} in policies}
        assert given == (set() if name == OUTSIDE else {accesses[login(document, name)]}), name
    for user, access in accesses.items():
        [statement] = document["Resources"][access]["Properties"]["PolicyDocument"]["Statement"]
        resource = statement["Resource"]["Fn::Sub"]
        assert (resource[0] if isinstance(resource, list) else resource).endswith(f"/{user}"), access


def test_proxy_admits_every_user_that_connects_through_it(document):
    """The owner connects to the cluster directly: migrations and partitions need locks and time."""
    [statement] = document["Resources"]["DatabaseProxyRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    through = {resource["Fn::Sub"].rpartition("/")[2] for resource in statement["Resource"]}
    direct = {
        name
        for name, function in functions(document).items()
        if function["Properties"].get("Environment", {}).get("Variables", {}).get("DATABASE_HOST")
        == {"Fn::GetAtt": "DatabaseCluster.Endpoint.Address"}
    }
    assert direct == OWNERS
    assert through == {login(document, name) for name in set(functions(document)) - OWNERS - {OUTSIDE}}


def test_functions_cannot_create_log_groups(document):
    """AWS's own policy for functions allows it, but a log group created that way never expires its logs."""
    denied = document["Resources"]["DeniedToFunctions"]["Properties"]["PolicyDocument"]["Statement"]
    assert {"Effect": "Deny", "Action": "logs:CreateLogGroup", "Resource": "*"} in denied


def test_services_assume_roles_only_for_this_account(document):
    """The service could use a role without a condition on behalf of another customer's resource."""
    condition = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    trusts = [document["Globals"]["Function"]["AssumeRolePolicyDocument"]]
    roles = of_type(document, "AWS::IAM::Role")
    trusts += [role["Properties"]["AssumeRolePolicyDocument"] for role in roles.values()]
    assert len(trusts) >= 3
    for trust in trusts:
        for statement in trust["Statement"]:
            assert statement["Action"] == "sts:AssumeRole"
            assert statement["Condition"] == condition, statement["Principal"]
    for name, function in functions(document).items():
        assert "AssumeRolePolicyDocument" not in function["Properties"], name
        for event in function["Properties"].get("Events", {}).values():
            if event["Type"] == "ScheduleV2":  # otherwise SAM creates a role without a condition
                assert event["Properties"]["RoleArn"] == {"Fn::GetAtt": "SchedulerRole.Arn"}, name


def test_scheduler_role_invokes_only_scheduled_functions(document):
    [policy] = document["Resources"]["SchedulerRole"]["Properties"]["Policies"]
    invoke, send = policy["PolicyDocument"]["Statement"]
    scheduled = {schedule.function.logical_id for schedule in template.load().schedules}
    assert {resource["Fn::GetAtt"] for resource in invoke["Resource"]} == {f"{name}.Arn" for name in scheduled}
    assert (invoke["Action"], send["Action"]) == ("lambda:InvokeFunction", "sqs:SendMessage")
    assert send["Resource"] == {"Fn::GetAtt": "DeadLetters.Arn"}


def test_devices_and_operators_are_throttled_separately(document):
    """The stage's default limit applies to operators; each route without a signature has its own limit."""
    api = document["Resources"]["Api"]["Properties"]
    assert api["DefaultRouteSettings"]["ThrottlingRateLimit"] == {"Ref": "OperatorRequestsPerSecond"}
    open_routes = {route.key for route in template.load().routes if route.authorizer == "NONE"}
    # A setting for a route that does not exist fails the deploy.
    assert set(api["RouteSettings"]) == open_routes
    for key, setting in api["RouteSettings"].items():
        assert setting.keys() == {"ThrottlingRateLimit", "ThrottlingBurstLimit"}, key
        assert setting["ThrottlingRateLimit"] != {"Ref": "OperatorRequestsPerSecond"}, key


def test_largest_reserved_concurrency_fits_into_an_account(document):
    """Lambda keeps 100 of an account's concurrency (1,000 unless AWS raised it) unreserved."""
    most, number = document["Parameters"]["ReservedConcurrency"]["MaxValue"], len(functions(document))
    assert most * number <= 1_000 - 100
    said = (ROOT / "docs" / "deploy.md").read_text()
    assert f"{number} functions ({number - 1} without `Webhook` and `NotificationRoutes`)" in said
    assert f"(quota − 100) / {number}, rounded down: {900 // number} with a quota of 1,000" in said
    assert f"less than {100 + number}. The\ntemplate accepts at most {most}." in said


def test_lambda_logs_json_and_only_relevant_records(document):
    logging = document["Globals"]["Function"]["LoggingConfig"]
    assert logging == {
        "LogGroup": {"Ref": "FunctionLogs"},
        "LogFormat": "JSON",
        "SystemLogLevel": "WARN",  # failures and timeouts, but not every start, end and report
        "ApplicationLogLevel": "INFO",  # the record of a heartbeat has this level
    }
    assert not any("LoggingConfig" in each["Properties"] for each in functions(document).values())


def test_heartbeat_log_sampling_is_a_parameter(document):
    parameter = document["Parameters"]["HeartbeatLogSample"]
    assert (parameter["Default"], parameter["MinValue"]) == (1, 1)
    told = {
        name
        for name, each in functions(document).items()
        if "HEARTBEAT_LOG_SAMPLE" in each["Properties"].get("Environment", {}).get("Variables", {})
    }
    assert told == {"HeartbeatFunction"}


def test_only_the_function_that_posts_to_the_internet_is_outside_the_vpc(document):
    for name, function in functions(document).items():
        outside = function["Properties"].get("VpcConfig") == {"Ref": "AWS::NoValue"}
        assert outside == (name == OUTSIDE), name


def test_watch_may_publish_only_to_the_alarm_topic(document):
    watch = functions(document)["WatchFunction"]["Properties"]
    topic = {"Fn::If": ["OwnTopic", {"Ref": "AlarmTopic"}, {"Ref": "AlarmTopicArn"}]}
    assert watch["Environment"]["Variables"]["ALERT_TOPIC_ARN"] == topic
    allowed = [statement for policy in watch["Policies"] for statement in policy.get("Statement", [])]
    assert allowed == [{"Effect": "Allow", "Action": "sns:Publish", "Resource": topic}]
    told = functions(document)[OUTSIDE]["Properties"]["Events"]["Topic"]
    assert told == {"Type": "SNS", "Properties": {"Topic": topic}}


def test_notification_lease_is_longer_than_the_function_timeout():
    from nexmdm.alerts.notifications import LEASE_SECONDS

    assert template.load().function("watch").timeout < LEASE_SECONDS


def test_only_device_routes_need_no_signature():
    routes = template.load().routes
    assert {route.key for route in routes if route.authorizer == "NONE"} == DEVICE_ROUTES
    assert {route.authorizer for route in routes} == {"NONE", "AWS_IAM"}


def test_environment_names_secrets_without_containing_them(document):
    kept = set(of_type(document, "AWS::SecretsManager::Secret"))
    for name, function in functions(document).items():
        for variable, value in function["Properties"].get("Environment", {}).get("Variables", {}).items():
            if variable in SECRETS:
                value = chosen(value)
                names_one = value.get("Ref") in kept or value.get("Fn::GetAtt", "").endswith(
                    "MasterUserSecret.SecretArn"
                )
                assert names_one, f"{name} {variable} is {value}"
            assert not re.search(r"PASSWORD|TOKEN|PRIVATE", variable), f"{name} {variable}"
    for name, parameter in document["Parameters"].items():
        assert not re.search(r"password|secret|key$", name, re.IGNORECASE), f"a secret as the parameter {name}"
        assert not parameter.get("NoEcho"), name
    assert document["Globals"]["Function"]["Environment"]["Variables"]["DATABASE_URL"] == ""
    assert not [node for node in walk(document) if isinstance(node, str) and "{{resolve:" in node]


def test_function_may_read_only_its_own_secrets(document):
    for name, function in functions(document).items():
        properties = function["Properties"]
        variables = properties.get("Environment", {}).get("Variables", {})
        given = [chosen(value) for variable, value in variables.items() if variable in SECRETS]
        allowed = [
            chosen(resource)
            for policy in properties["Policies"]
            for statement in policy.get("Statement", [])
            if statement["Action"] == "secretsmanager:GetSecretValue"
            for resource in listed(statement["Resource"])
        ]
        assert sorted(map(str, allowed)) == sorted(map(str, given)), name


def test_tls_is_required(document):
    (proxy,) = of_type(document, "AWS::RDS::DBProxy").values()
    assert proxy["Properties"]["RequireTLS"] is True
    (parameters,) = of_type(document, "AWS::RDS::DBClusterParameterGroup").values()
    assert parameters["Properties"]["Parameters"]["rds.force_ssl"] == "1"
    buckets = set(of_type(document, "AWS::S3::Bucket"))
    policies = of_type(document, "AWS::S3::BucketPolicy").values()
    assert {policy["Properties"]["Bucket"]["Ref"] for policy in policies} == buckets
    for policy in policies:
        statements = policy["Properties"]["PolicyDocument"]["Statement"]
        assert {"Bool": {"aws:SecureTransport": "false"}} in [statement.get("Condition") for statement in statements]


EXPORTS = {
    "ExportDownloads": ("WithDownloadExport", "DOWNLOAD_EXPORT_BUCKET", export.PREFIX, "s3:PutObject"),
    "ExportHeartbeats": (
        "WithHeartbeatExport",
        "HEARTBEAT_EXPORT_BUCKET",
        archive.PREFIX,
        ["s3:PutObject", "s3:AbortMultipartUpload"],
    ),
}


@pytest.mark.parametrize("parameter", EXPORTS)
def test_export_is_off_by_default_and_may_only_write(document, parameter):
    condition, setting, prefix, actions = EXPORTS[parameter]
    assert document["Parameters"][parameter]["Default"] == "off"
    assert document["Conditions"][condition] == {"Fn::Equals": [{"Ref": parameter}, "on"]}
    cleanup = functions(document)["CleanupFunction"]["Properties"]
    bucket = {"Fn::If": [condition, {"Ref": "ExportBucket"}, {"Ref": "AWS::NoValue"}]}
    assert cleanup["Environment"]["Variables"][setting] == bucket
    allowed = [policy["Fn::If"] for policy in cleanup["Policies"] if "Fn::If" in policy]
    write = {"Effect": "Allow", "Action": actions, "Resource": {"Fn::Sub": "${ExportBucket.Arn}/" + prefix + "*"}}
    assert [condition, {"Statement": [write]}, {"Ref": "AWS::NoValue"}] in allowed
    assert len(allowed) == len(EXPORTS)
    # Also through the VPC endpoint for S3.
    endpoint = document["Resources"]["S3Endpoint"]["Properties"]["PolicyDocument"]["Statement"]
    through = [statement["Fn::If"] for statement in endpoint if "Fn::If" in statement]
    assert [condition, {**write, "Principal": "*"}, {"Ref": "AWS::NoValue"}] in through
    others = [each for name, each in functions(document).items() if name != "CleanupFunction"]
    assert "ExportBucket" not in str([each["Properties"].get("Policies") for each in others])


def test_export_bucket_exists_if_an_export_is_on(document):
    either = [{"Condition": condition} for condition, *_ in EXPORTS.values()]
    assert document["Conditions"]["WithExport"] == {"Fn::Or": either}
    for name in ("ExportBucket", "ExportBucketPolicy"):
        assert document["Resources"][name]["Condition"] == "WithExport"
    [rule] = document["Resources"]["ExportBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    assert rule["ExpirationInDays"] == {"Ref": "ExportDays"}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


def test_database_from_a_snapshot_is_migrated_and_gets_no_names(document):
    cluster = document["Resources"]["DatabaseCluster"]["Properties"]
    restored = [cluster[name]["Fn::If"] for name in ("SnapshotIdentifier", "DatabaseName", "MasterUsername")]
    assert [condition for condition, *_ in restored] == ["Restored"] * 3
    assert [then for _, then, _ in restored] == [{"Ref": "DatabaseSnapshot"}, *[{"Ref": "AWS::NoValue"}] * 2]
    schema = document["Resources"]["Schema"]["Properties"]
    assert schema["Database"] == {"Fn::GetAtt": "DatabaseCluster.DBClusterResourceId"}


def test_layers_are_built_for_the_processor_and_python_of_the_functions(document):
    globals_ = document["Globals"]["Function"]
    for name, layer in of_type(document, "AWS::Serverless::LayerVersion").items():
        assert layer["Properties"]["CompatibleArchitectures"] == globals_["Architectures"], name
        assert layer["Properties"]["CompatibleRuntimes"] == [globals_["Runtime"]], name
        assert [layer["Metadata"]["BuildArchitecture"]] == globals_["Architectures"], name
    assert globals_["Architectures"] == ["arm64"]


@pytest.mark.parametrize("target", ["build-NexmdmLayer", "build-FcmDispatchFunction"])
def test_wheels_match_the_processor_and_python_of_the_functions(document, target, tmp_path):
    command = ["make", "--dry-run", "-f", ROOT / "Makefile", target, f"ARTIFACTS_DIR={tmp_path}", "NEXMDM_BUILD=lambda"]
    done = subprocess.run(command, cwd=ROOT / "functions/fcm_dispatch", capture_output=True, text=True, check=True)
    [pip] = [line for line in done.stdout.splitlines() if " pip install " in line]
    words = shlex.split(pip[pip.index(" pip install ") :].partition("; fi")[0])
    options = list(pairwise(words))
    python = document["Globals"]["Function"]["Runtime"].removeprefix("python")
    assert [value for name, value in options if name == "--python-version"] == [python]
    platforms = [value for name, value in options if name == "--platform"]
    assert platforms
    assert all(platform.endswith("_aarch64") for platform in platforms)


def test_every_function_is_built_by_make_and_waits_for_the_schema(document):
    for name, function in functions(document).items():
        assert function["Metadata"] == {"BuildMethod": "makefile", "ContextPath": "."}, name
        assert (function.get("DependsOn") == "Schema") == (name != "MigrateFunction"), name
    schema = document["Resources"]["Schema"]["Properties"]
    assert schema["Migrations"] == {"Ref": "MigrationsLayer"}
    assert schema["ServiceTimeout"] > document["Resources"]["MigrateFunction"]["Properties"]["Timeout"]


def test_schema_function_can_respond_while_the_stack_is_deleted(document):
    """The parts of a subnet's path to S3 are deleted after the schema resource."""
    condition, network, _ = document["Resources"]["Schema"]["Properties"]["Network"]["Fn::If"]
    assert condition == "OwnNetwork"
    ways = {"EgressRoute", "S3Endpoint", "SubnetARoutes", "SubnetBRoutes"}
    assert set(re.findall(r"\$\{(\w+)\}", network["Fn::Sub"])) == ways


def test_functions_wait_until_the_proxy_serves(document):
    """Every function waits for Schema, and Schema waits for these resources."""
    condition, proxy, _ = document["Resources"]["Schema"]["Properties"]["Proxy"]["Fn::If"]
    assert condition == "WithProxy"
    ways = {"DatabaseProxyTargets", "FunctionsToProxy", "DatabaseFromProxy"}
    assert set(re.findall(r"\$\{(\w+)\}", proxy["Fn::Sub"])) == ways


def test_s3_endpoint_policy_allows_what_the_roles_allow(document):
    """The endpoint's policy is evaluated too: without s3:ListBucket there, a missing upload returns 403."""
    through = document["Resources"]["S3Endpoint"]["Properties"]["PolicyDocument"]["Statement"]
    open_ = {
        (action, str(each["Resource"])) for each in through if "Effect" in each for action in listed(each["Action"])
    }
    for name in ("ApkBuildsFunction", "ApkDownloadFunction"):
        for policy in functions(document)[name]["Properties"]["Policies"]:
            for statement in policy.get("Statement", []):
                asked = {(action, str(statement["Resource"])) for action in listed(statement["Action"])}
                assert asked <= open_, name


def test_requirements_are_pinned_and_hashed():
    files = [*ROOT.glob("functions/*/requirements.txt"), *ROOT.glob("requirements/*.txt")]
    assert len(files) >= 6
    for path in files:
        text = path.read_text()
        pins = re.findall(r"^[A-Za-z0-9._\[\]-]+==\S+.*\\$", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[A-Za-z]", text, re.MULTILINE)), f"{path} has an unhashed line"
        assert "://" not in text, f"{path} names a host"
        assert path.with_suffix(".in").exists(), path


# Resources that are kept after deletion: CloudFormation cannot create a second one with the same name.
KEPT = {
    "AWS::RDS::DBCluster": ("Snapshot", "Snapshot"),
    "AWS::S3::Bucket": ("RetainExceptOnCreate", "Retain"),
    "AWS::SecretsManager::Secret": ("RetainExceptOnCreate", "Retain"),
}
NAMES = {"BucketName", "Name", "DBClusterIdentifier", "LogGroupName", "LayerName", "TopicName", "QueueName", "RoleName"}


def test_data_outlives_the_stack_but_not_a_failed_first_deploy(document):
    for kind, policies in KEPT.items():
        for name, resource in of_type(document, kind).items():
            assert (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")) == policies, name


def test_kept_resources_have_no_fixed_name(document):
    """With a fixed name, a deploy after a failed or deleted one would find the name taken."""
    kept = 0
    for name, resource in document["Resources"].items():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            assert resource["Properties"]["RetentionPolicy"] == "Delete", name
        if resource.get("DeletionPolicy", "Delete") != "Delete":
            kept += 1
            assert not NAMES & resource["Properties"].keys(), name
    assert kept >= 6


def test_function_logs_outlive_a_rolled_back_deploy(document):
    group = document["Resources"]["FunctionLogs"]
    assert (group["DeletionPolicy"], group["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_database_has_the_version_of_its_snapshot_or_the_current_minor(document):
    """A version besides a snapshot is refused if the snapshot is newer, and AWS upgrades clusters on its own."""
    version = document["Resources"]["DatabaseCluster"]["Properties"]["EngineVersion"]
    assert version == {"Fn::If": ["Restored", {"Ref": "AWS::NoValue"}, "17"]}
    assert document["Resources"]["DatabaseParameters"]["Properties"]["Family"] == "aurora-postgresql17"


@pytest.mark.parametrize("schedule", template.load().schedules, ids=lambda schedule: schedule.name)
def test_schedule_can_be_disabled_and_has_a_retry_policy_and_dead_letter_queue(document, schedule):
    function = document["Resources"][schedule.function.logical_id]["Properties"]
    event = function["Events"][schedule.name.removeprefix(schedule.function.logical_id)]["Properties"]
    assert event["State"] == {"Fn::If": ["SchedulesOn", "ENABLED", "DISABLED"]}
    assert event["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": "DeadLetters.Arn"}}
    assert event["RetryPolicy"].keys() == {"MaximumRetryAttempts", "MaximumEventAgeInSeconds"}
    # Without it, SAM would name both schedules alike, and dev and prod could not share an account.
    assert event["OmitName"] is True
    # EventBridge only hands over the event; Lambda reports a failed run.
    assert function["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]["Destination"] == {
        "Fn::GetAtt": "DeadLetters.Arn"
    }


def test_logs_expire(document):
    for name, group in of_type(document, "AWS::Logs::LogGroup").items():
        assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}, name
    (api,) = of_type(document, "AWS::Serverless::HttpApi").values()
    logged = api["Properties"]["AccessLogSettings"]["Format"]
    assert not re.search(r"\$context\.(path|httpMethod.*path|authorizer|requestOverride)|querystring|header", logged)


def test_send_lease_is_longer_than_the_function_timeout(document):
    from nexmdm.runtime.settings import Settings

    config = Settings(database_url="postgresql://")
    timeout = template.load().function("fcm_dispatch").timeout
    assert config.dispatch_lease_seconds > timeout + config.fcm_timeout_seconds


# Each of these would log whole events, including the tokens in their headers.
DEBUGGING = ("POWERTOOLS_LOGGER_LOG_EVENT", "POWERTOOLS_DEV", "POWERTOOLS_DEBUG", "POWERTOOLS_TRACER_CAPTURE_RESPONSE")


def test_no_event_is_logged(document):
    holders = [document["Globals"]["Function"], *(each["Properties"] for each in functions(document).values())]
    settings = [item for holder in holders for item in holder.get("Environment", {}).get("Variables", {}).items()]
    assert [name for name, _ in settings if name in DEBUGGING] == []
    levels = [value for name, value in settings if name.endswith("LOG_LEVEL")]
    levels += [node.get("ApplicationLogLevel") for node in walk(document) if isinstance(node, dict)]
    assert not {"DEBUG", "TRACE"} & {str(level).upper() for level in levels}
    for path in [*(ROOT / "functions").rglob("*.py"), *(ROOT / "layers").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            assert not (isinstance(node, ast.keyword) and node.arg == "log_event"), path
            assert not (isinstance(node, ast.Attribute) and node.attr == "inject_lambda_context"), path
