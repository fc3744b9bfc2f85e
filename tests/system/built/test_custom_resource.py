"""The schema's custom resource as CloudFormation sees it: create, update, delete, and the reasons of failures.

The built migrate function runs in Lambda's runtime client; a listener takes the place of CloudFormation's bucket for
responses, and a PostgreSQL 16 enforces RDS's rules about logins.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from local import s3, template
from local.rds.door import ADMIN, ADMIN_PASSWORD, KEY, REGION, Door, rds
from local.rds.server import DATABASE, Server, aurora
from tests.support import samples
from tests.support.cloudformation import CloudFormation
from tests.system.built import lambda_runtime

FUNCTION = template.load().function("migrate")
# Both margins of the handler plus two seconds for another login attempt; a failure is reported after those.
SHORT = {"AWS_LAMBDA_FUNCTION_TIMEOUT": "32"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with aurora() as running:
        yield running


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[str]:
    with s3.running() as url:
        yield url


@pytest.fixture
def door(server: Server, tmp_path: Path) -> Iterator[Door]:
    server.begin_anew()
    url = f"postgresql:///{DATABASE}?host={server.socket}&port={server.port}"
    with rds(url, tmp_path, server) as opened:
        yield opened


class Stack:
    """Sends events to the function as CloudFormation does, and returns its responses."""

    def __init__(self, door: Door, secrets: str, listener: CloudFormation, log: Path) -> None:
        client = boto3.client(
            "secretsmanager", REGION, endpoint_url=secrets, aws_access_key_id="x", aws_secret_access_key="x"
        )
        text = json.dumps({"username": ADMIN, "password": ADMIN_PASSWORD})
        self._listener, self._log = listener, log
        self.variables = {
            "DATABASE_USER": FUNCTION.environment["DATABASE_USER"],
            "DATABASE_HOST": door.host,
            "DATABASE_PORT": str(door.port),
            "DATABASE_NAME": DATABASE,
            "DATABASE_CA_BUNDLE": str(door.ca_bundle),
            "AWS_ACCESS_KEY_ID": KEY.access_key,
            "AWS_SECRET_ACCESS_KEY": KEY.secret_key,
            "AWS_SESSION_TOKEN": KEY.token,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"{secrets}/",
            "DATABASE_ADMIN_SECRET": client.create_secret(Name=log.parent.name, SecretString=text)["ARN"],
            "RESPONSE_HOST": listener.url.split("/")[2],
        }

    def asks(self, kind: str, **variables: str) -> dict[str, Any]:
        event = samples.load("migrate-deploy", self._listener.url) | {"RequestType": kind}
        before = len(self._listener.answers)
        with lambda_runtime.runtime(FUNCTION, self.variables | variables, self._log) as running:
            running.invoke(event)
        [answer] = self._listener.answers[before:]
        assert (answer["StackId"], answer["RequestId"]) == (event["StackId"], event["RequestId"])
        return answer


@pytest.fixture
def stack(door: Door, secrets_manager: str, cloudformation: CloudFormation, tmp_path: Path) -> Stack:
    return Stack(door, secrets_manager, cloudformation, tmp_path / "migrate.log")


def test_stack_is_created_updated_and_deleted(stack: Stack, door: Door, server: Server):
    made = stack.asks("Create")
    assert made["Status"] == "SUCCESS", made
    tables = server.run("SELECT count(*) FROM pg_tables WHERE tableowner = 'nexmdm_owner'", database=DATABASE)
    assert tables[0][0] > 10
    logins = len(door.logins)
    updated = stack.asks("Update")
    assert (updated["Status"], updated["Data"]["revision"]) == ("SUCCESS", made["Data"]["revision"])
    assert {user for user, _ in door.logins[logins:]} == {"nexmdm_owner"}
    # The database may be deleted before the resource of its schema.
    deleted = stack.asks("Delete", DATABASE_HOST="gone.invalid")
    assert deleted["Status"] == "SUCCESS"
    assert server.run("SELECT count(*) FROM pg_tables WHERE tableowner = 'nexmdm_owner'", database=DATABASE) == tables


def failed(stack: Stack, record_property, **variables: str) -> str:
    answer = stack.asks("Create", **SHORT, **variables)
    assert answer["Status"] == "FAILED", answer
    assert ADMIN_PASSWORD not in answer["Reason"]
    assert KEY.secret_key not in answer["Reason"]
    record_property("measured", f"CloudFormation shows: {answer['Reason']}")
    return answer["Reason"]


def test_reason_names_an_unresolvable_host(stack: Stack, record_property):
    reason = failed(stack, record_property, DATABASE_HOST="nexmdm.cluster-abc.invalid")
    assert "nexmdm.cluster-abc.invalid" in reason
    assert "Name or service not known" in reason


def test_reason_has_the_socket_message_for_a_wrong_port(stack: Stack, record_property):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    reason = failed(stack, record_property, DATABASE_PORT=str(port))
    assert f"localhost:{port}" in reason
    assert "Connection refused" in reason


def test_reason_names_both_refused_logins(stack: Stack, server: Server, record_property):
    server.run(f"ALTER ROLE {ADMIN} PASSWORD 'another'")
    reason = failed(stack, record_property)
    assert "nexmdm_owner by IAM" in reason
    assert f'password authentication failed for user "{ADMIN}"' in reason


def test_reason_names_a_failing_revision_and_the_server_message(stack, server, record_property):
    server.run("CREATE TABLE devices (id int)", database=DATABASE)
    reason = failed(stack, record_property)
    assert reason.startswith("revision 20251018_7ac6ecbe4e31_baseline: DuplicateTable (42P07): relation")


def test_reason_names_an_unreachable_secrets_manager(stack: Stack, record_property):
    reason = failed(stack, record_property, AWS_ENDPOINT_URL_SECRETS_MANAGER="https://secretsmanager.nowhere.invalid/")
    assert "secretsmanager.nowhere.invalid" in reason


def test_reason_names_missing_certificates_of_the_layer(stack: Stack, record_property):
    reason = failed(stack, record_property, DATABASE_CA_BUNDLE="/opt/rds-ca-bundle.pem")
    assert 'root certificate file "/opt/rds-ca-bundle.pem" does not exist' in reason
