"""Our signatures are botocore's, byte for byte."""

from datetime import UTC, datetime
from unittest import mock

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.session import Session
from nexmdm import sigv4

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
HOST = "nexmdm.cluster-abc.eu-west-1.rds.amazonaws.com"
ROLES = [
    sigv4.Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    sigv4.Credentials("ASIAEXAMPLE", "secret", "IQoJb3JpZ2luX2VjE//+==token/with+every=sign%"),
]


@pytest.fixture(autouse=True)
def at_noon(monkeypatch):
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: NOW.replace(tzinfo=None))


@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("user", ["nexmdm_app", "odd user+/=&~é"])
def test_the_database_token_is_what_rds_clients_make(who, user):
    client = Session().create_client(
        "rds", "eu-west-1", aws_access_key_id=who.key_id, aws_secret_access_key=who.secret, aws_session_token=who.token
    )
    theirs = client.generate_db_auth_token(DBHostname=HOST, Port=5432, DBUsername=user)
    assert sigv4.database_token(HOST, 5432, user, "eu-west-1", who, NOW) == theirs


@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("url", ["https://secretsmanager.eu-west-1.api.aws/", "http://127.0.0.1:5000/"])
def test_a_post_is_signed_as_botocore_signs_it(who, url):
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "secretsmanager.GetSecretValue"}
    body = '{"SecretId": "é"}'.encode()
    request = AWSRequest("POST", url, dict(headers), body)
    botocore.auth.SigV4Auth(Credentials(*who), "secretsmanager", "eu-west-1").add_auth(request)
    ours = sigv4.signed_headers(url, body, headers, "secretsmanager", "eu-west-1", who, NOW)
    assert ours["Authorization"] == request.headers["Authorization"]
    assert ours["X-Amz-Date"] == request.headers["X-Amz-Date"]


def test_a_token_is_of_its_own_moment():
    first = sigv4.database_token(HOST, 5432, "u", "eu-west-1", ROLES[0], NOW)
    with mock.patch.object(sigv4, "datetime") as clock:
        clock.now.return_value = NOW.replace(minute=9)
        assert sigv4.database_token(HOST, 5432, "u", "eu-west-1", ROLES[0]) != first
