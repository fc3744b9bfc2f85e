"""The output of `make build-host`, run as Lambda runs it and configured by template.yaml (`make test-built`).

The database has TLS and IAM tokens as on RDS, secrets are read by ARN, and S3 and FCM are fakes on sockets.

The functions import nothing from the source tree: their processes see only the artifacts.
"""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from nexmdm.runtime import database, settings

from local import s3, template
from local.fcm.account import service_account
from local.rds.door import ADMIN, ADMIN_PASSWORD, KEY, REGION, Door, rds
from local.rds.server import DATABASE, Server, aurora
from local.samples import TOKEN
from tests.support import samples
from tests.support.cloudformation import CloudFormation, listening
from tests.support.fcm import HMAC_KEY
from tests.support.webhook import SECRET_PATH
from tests.system.built import lambda_runtime

FUNCTIONS = template.load().functions
# Limits: unzipped code and layers (MB; Lambda allows 250), import of the handler (s), peak memory of the process (MB).
BUDGETS = {"heartbeat": (60, 1.0, 120), "fcm_dispatch": (200, 3.0, 256), "migrate": (120, 3.0, 256)}
OTHERS = (120, 2.0, 256)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A PostgreSQL as strict as RDS, with the roles and the schema that the built migrate function creates."""
    folder = tmp_path_factory.mktemp("released")
    with aurora() as server, s3.running() as address, listening() as cloudformation_:
        server.begin_anew()
        client = boto3.client("secretsmanager", REGION, endpoint_url=address, **_keys("x", "x"))
        admin = json.dumps({"username": ADMIN, "password": ADMIN_PASSWORD})
        arn = client.create_secret(Name="admin", SecretString=admin)["ARN"]
        function = FUNCTIONS["migrate"]
        with rds(_url(server, DATABASE), folder, server) as door:
            variables = logins(door, DATABASE) | {
                "DATABASE_USER": function.environment["DATABASE_USER"],
                "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"{address}/",
                "DATABASE_ADMIN_SECRET": arn,
                "RESPONSE_HOST": cloudformation_.url.split("/")[2],
            }
            with lambda_runtime.runtime(function, variables, folder / "migrate.log") as running:
                running.invoke(samples.load("migrate-deploy", cloudformation_.url) | {"RequestType": "Create"})
        assert [answer["Status"] for answer in cloudformation_.answers] == ["SUCCESS"], cloudformation_.answers
        yield server


@pytest.fixture
def variables(released, tmp_path, fake_fcm, bucket, webhook, monkeypatch):
    """The environment of the template's functions, with the secrets and the database that it names.

    The database user is the one that the template names, so each function runs with the rights of its own role.
    """
    name = f"nexmdm_{uuid.uuid4().hex[:8]}"
    released.run(f"CREATE DATABASE {name} TEMPLATE {DATABASE}")
    monkeypatch.setenv("DATABASE_URL", _url(released, name))
    settings.load.cache_clear()
    database.connection.cache_clear()
    samples.make_real()
    database.connection().execute(PENDING)
    client = boto3.client("secretsmanager", REGION, endpoint_url=bucket.url, **_keys("x", "x"))

    def secret(name: str, text: str) -> str:
        return client.create_secret(Name=f"{name}-{uuid.uuid4()}", SecretString=text)["ARN"]

    fcm_url = fake_fcm.url if hasattr(fake_fcm, "url") else _setting("fcm_endpoint")
    sns = boto3.client("sns", REGION, endpoint_url=bucket.url, **_keys("x", "x"))
    with rds(_url(released, name), tmp_path, released) as door:
        yield logins(door, name) | {
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"{bucket.url}/",
            "AWS_ENDPOINT_URL_S3": bucket.url,
            "APK_BUCKET": "nexmdm-test-apks",
            "FCM_ENDPOINT": fcm_url,
            "FCM_SERVICE_ACCOUNT": secret("fcm", service_account(fcm_url)),
            "COMMAND_HMAC_KEY": secret("hmac", HMAC_KEY),
            "WEBHOOK_URL": secret("webhook", webhook.url),
            "AWS_ENDPOINT_URL_SNS": bucket.url,
            "ALERT_TOPIC_ARN": sns.create_topic(Name="alarms")["TopicArn"],
            "ADMIN_SECRET": secret("admin", json.dumps({"username": ADMIN, "password": ADMIN_PASSWORD})),
        }
    database.connection().close()
    settings.load.cache_clear()
    database.connection.cache_clear()
    released.run(f"DROP DATABASE {name} WITH (FORCE)")


# The heartbeat must have a command to list, because only then it reads the key to sign it.
PENDING = """
INSERT INTO fcm_dispatches (request_id, device_id, action, payload, payload_hash, state, created_by, expires_at)
SELECT 'pending', id, 'ping', '{}', 'h', 'accepted', 'operator', clock_timestamp() + interval '1 hour' FROM devices
"""


def logins(door: Door, name: str) -> dict[str, str]:
    return {
        "POWERTOOLS_SERVICE_NAME": "nexmdm-test",
        "DATABASE_HOST": door.host,
        "DATABASE_PORT": str(door.port),
        "DATABASE_NAME": name,
        "DATABASE_CA_BUNDLE": str(door.ca_bundle),
        "AWS_ACCESS_KEY_ID": KEY.access_key,
        "AWS_SECRET_ACCESS_KEY": KEY.secret_key,
        "AWS_SESSION_TOKEN": KEY.token,
    }


def _url(server: Server, name: str) -> str:
    return f"postgresql://postgres@/{name}?host={server.socket}&port={server.port}"


def _keys(key: str, secret: str) -> dict[str, str]:
    return {"aws_access_key_id": key, "aws_secret_access_key": secret}


def _setting(name: str) -> str:
    return getattr(settings.load(), name)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_built_function_handles_its_events_within_its_budgets(
    name,
    variables,
    tmp_path: Path,
    cloudformation: CloudFormation,
    record_property,
):
    function = FUNCTIONS[name]
    admin = variables.pop("ADMIN_SECRET")
    variables |= {"DATABASE_USER": function.environment["DATABASE_USER"]}
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
        assert canary not in log, f"{canary!r} is in the log"
    measured = f"{name:15} {size:6.1f} MB  import {imported * 1000:5.0f} ms  peak {peak:4.0f} MB  {', '.join(took)}"
    record_property("measured", measured)
    most_size, most_import, most_peak = BUDGETS.get(name, OTHERS)
    assert size <= most_size
    assert imported <= most_import
    assert peak <= min(most_peak, function.memory)


def test_release_is_built_for_the_processor_and_python_of_lambda():
    """If `make build` was run, every compiled module must be for aarch64 and CPython 3.13."""
    release = lambda_runtime.ROOT / ".aws-sam" / "build"
    if not release.exists():
        pytest.fail("run `make build` first: this test also checks the artifacts for Lambda")
    compiled = [path for path in release.rglob("*.so*") if path.is_file()]
    assert compiled
    for path in compiled:
        assert path.read_bytes()[18:20] == b"\xb7\x00", f"{path} is not for aarch64"
        if "cpython-" in path.name:
            assert "cpython-313-" in path.name, f"{path} is for another Python"
