"""The signer without a session makes the same signatures as a client, byte for byte."""

import re
from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.session import Session
from nexmdm.runtime import sigv4

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
HOST = "nexmdm.cluster-abc.eu-west-1.rds.amazonaws.com"
ROLES = [
    sigv4.Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    sigv4.Credentials("ASIAEXAMPLE", "secret", "IQoJb3JpZ2luX2VjE//+==token/with+every=sign%"),
]


class Caught(Exception):
    """Carries the request that a client was about to send."""


def client(service, who):
    keys = {"aws_access_key_id": who.access_key, "aws_secret_access_key": who.secret_key}
    return Session().create_client(service, "eu-west-1", aws_session_token=who.token, **keys)


@pytest.fixture(autouse=True)
def at_noon(monkeypatch):
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: NOW.replace(tzinfo=None))


@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("user", ["nexmdm_app", "odd user+/=&~é"])
def test_database_token_matches_that_of_an_rds_client(who, user):
    theirs = client("rds", who).generate_db_auth_token(DBHostname=HOST, Port=5432, DBUsername=user)
    assert sigv4.database_token(HOST, 5432, user, "eu-west-1", who) == theirs


@pytest.mark.parametrize("who", ROLES)
def test_signature_of_a_post_matches_that_of_a_client(who):
    def catch(request, **_):
        raise Caught(request)

    secrets = client("secretsmanager", who)
    secrets.meta.events.register("before-send", catch)
    with pytest.raises(Caught) as caught:
        secrets.get_secret_value(SecretId="é")
    (sent,) = caught.value.args
    theirs = {name.lower(): value.decode() for name, value in sent.headers.items() if isinstance(value, bytes)}
    signed = re.search("SignedHeaders=([^,]+)", theirs["authorization"])[1].split(";")
    headers = {name: theirs[name] for name in signed if name not in ("host", "x-amz-date", "x-amz-security-token")}
    ours = sigv4.signed_headers(sent.url, sent.body, headers, "secretsmanager", "eu-west-1", who)
    assert ours["Authorization"] == theirs["authorization"]
    assert ours["X-Amz-Date"] == theirs["x-amz-date"]


def test_token_is_signed_with_the_current_time(monkeypatch):
    first = sigv4.database_token(HOST, 5432, "u", "eu-west-1", ROLES[0])
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: NOW.replace(minute=9, tzinfo=None))
    assert sigv4.database_token(HOST, 5432, "u", "eu-west-1", ROLES[0]) != first
