"""What `make build-host` built, run as Lambda runs it and configured as template.yaml does. `make test-built`.

RDS's front door with TLS and IAM tokens, secrets by ARN, S3 and FCM on sockets.

Nothing is imported from the source tree into the functions: their processes see the artifacts only.
"""

import json
import time
from pathlib import Path

import boto3
import pytest

from local import template
from local.fcm.account import service_account
from local.rds.door import ADMIN, ADMIN_PASSWORD, KEY, REGION, rds
from local.samples import TOKEN
from tests.conftest import run_sql
from tests.functions.conftest import bucket, fake_fcm, s3_server, webhook  # noqa: F401  fixtures
from tests.functions.test_migrate import CloudFormation, cloudformation  # noqa: F401  a fixture
from tests.support import samples
from tests.support.fcm import HMAC_KEY
from tests.support.webhook import SECRET_PATH
from tests.system.built import lambda_runtime

FUNCTIONS = template.load().functions
# Unzipped code and layers, MB; a handler's import, s; peak of the process, MB. Lambda's own limit is 250 MB.
BUDGETS = {"heartbeat": (60, 1.0, 120), "fcm_dispatch": (200, 3.0, 256), "migrate": (120, 3.0, 256)}
OTHERS = (120, 2.0, 256)
ROLES = (ADMIN, "nexmdm_owner", "nexmdm_app", "nexmdm_device")


@pytest.fixture
def variables(url, server, tmp_path, fake_fcm, bucket, webhook, monkeypatch):  # noqa: F811
    """The environment of the template's functions, and the secrets, roles and database that it speaks of."""
    samples.make_real()
    run_sql(server, *(f"DROP ROLE IF EXISTS {role}" for role in (*ROLES, "rds_iam")), "CREATE ROLE rds_iam")
    run_sql(url, *(f"CREATE ROLE {role} LOGIN" for role in ROLES), f"ALTER ROLE {ADMIN} SUPERUSER")
    run_sql(url, "ALTER ROLE nexmdm_owner SUPERUSER", "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO nexmdm_app")
    run_sql(url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO nexmdm_app")
    client = boto3.client("secretsmanager", REGION, endpoint_url=bucket.url, **_keys("x", "x"))

    def secret(name: str, text: str) -> str:
        return client.create_secret(Name=name, SecretString=text)["ARN"]

    fcm_url = fake_fcm.url if hasattr(fake_fcm, "url") else _setting("fcm_endpoint")
    with rds(url, tmp_path) as door:
        yield {
            "POWERTOOLS_SERVICE_NAME": "nexmdm-test",
            "DATABASE_HOST": door.host,
            "DATABASE_PORT": str(door.port),
            "DATABASE_NAME": url.partition("?")[0].rpartition("/")[2],
            "DATABASE_CA_BUNDLE": str(door.ca_bundle),
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"{bucket.url}/",
            "AWS_ENDPOINT_URL_S3": bucket.url,
            "APK_BUCKET": "nexmdm-test-apks",
            "AWS_ACCESS_KEY_ID": KEY.access_key,
            "AWS_SECRET_ACCESS_KEY": KEY.secret_key,
            "AWS_SESSION_TOKEN": KEY.token,
            "FCM_ENDPOINT": fcm_url,
            "FCM_SERVICE_ACCOUNT": secret("fcm", service_account(fcm_url)),
            "COMMAND_HMAC_KEY": secret("hmac", HMAC_KEY),
            "WEBHOOK_URL": secret("webhook", webhook.url),
            "AWS_ENDPOINT_URL_SNS": bucket.url,
            "ALERT_TOPIC_ARN": boto3.client("sns", REGION, endpoint_url=bucket.url, **_keys("x", "x")).create_topic(
                Name="alarms"
            )["TopicArn"],
            "ADMIN_SECRET": secret("admin", json.dumps({"username": ADMIN, "password": ADMIN_PASSWORD})),
        }
    run_sql(url, *(f"DROP OWNED BY {role}" for role in ROLES[1:]))
    run_sql(server, *(f"DROP ROLE IF EXISTS {role}" for role in (*ROLES, "rds_iam")))


def _keys(key: str, secret: str) -> dict[str, str]:
    return {"aws_access_key_id": key, "aws_secret_access_key": secret}


def _setting(name: str) -> str:
    from nexmdm.runtime import settings

    return getattr(settings.load(), name)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_the_built_function_answers_its_events_within_its_budgets(
    name,
    variables,
    tmp_path: Path,
    cloudformation: CloudFormation,  # noqa: F811
    record_property,
):
    function = FUNCTIONS[name]
    admin = variables.pop("ADMIN_SECRET")
    if name in ("migrate", "cleanup"):
        variables |= {"DATABASE_USER": "nexmdm_owner"}
    if name == "migrate":
        response_host = cloudformation.url.split("/")[2]
        variables |= {"DATABASE_ADMIN_SECRET": admin, "RESPONSE_HOST": response_host}
    size, imported = lambda_runtime.megabytes(lambda_runtime.paths(function)), lambda_runtime.import_seconds(function)
    events = [event for event in samples.files() if samples.function(event) == name]
    took = []
    with lambda_runtime.runtime(function, variables, tmp_path / "function.log") as running:
        for event in events:
            start = time.perf_counter()
            result = running.invoke(samples.load(event, cloudformation.url))
            took.append(f"{event} {(time.perf_counter() - start) * 1000:.0f} ms")
            samples.check(event, result)
        peak = running.peak_mb()
    assert name != "migrate" or [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"]
    log = (tmp_path / "function.log").read_text()
    for canary in (
        KEY.secret_key,
        KEY.token,
        HMAC_KEY,
        ADMIN_PASSWORD,
        "X-Amz-Signature",
        "PRIVATE KEY",
        TOKEN,
        SECRET_PATH,
    ):
        assert canary not in log, f"{canary!r} stands in the log"
    measured = f"{name:15} {size:6.1f} MB  import {imported * 1000:5.0f} ms  peak {peak:4.0f} MB  {', '.join(took)}"
    record_property("measured", measured)
    most_size, most_import, most_peak = BUDGETS.get(name, OTHERS)
    assert size <= most_size
    assert imported <= most_import
    assert peak <= min(most_peak, function.memory)


def test_the_release_is_built_for_lambdas_processor_and_python():
    """`make build`, when it was run: every compiled module is for aarch64 and CPython 3.13."""
    release = lambda_runtime.ROOT / ".aws-sam" / "build"
    if not release.exists():
        pytest.fail("run `make build` first: the artifacts for Lambda are looked at too")
    compiled = [path for path in release.rglob("*.so*") if path.is_file()]
    assert compiled
    for path in compiled:
        assert path.read_bytes()[18:20] == b"\xb7\x00", f"{path} is not for aarch64"
        if "cpython-" in path.name:
            assert "cpython-313-" in path.name, f"{path} is for another Python"
