"""The database as Lambda reaches it: TLS that checks the name, IAM tokens, roles without passwords, secrets by ARN."""

import json
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3
import psycopg2
import pytest
from nexmdm.runtime import database, settings
from nexmdm.runtime import secrets as stored_secrets
from nexmdm.runtime.errors import Unavailable
from nexmdm.runtime.settings import SettingsError
from nexmdm.schema import roles

from local import s3
from local.postgres import embedded
from tests.conftest import alembic, run_sql, url_of
from tests.support.rds import ADMIN, ADMIN_PASSWORD, KEY, REGION, Door, rds

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

ROLES = ("nexmdm_owner", "nexmdm_app", ADMIN, "rds_iam")


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[str]:
    with s3.running() as url:  # moto: every service it knows, at one address
        yield f"{url}/"


@pytest.fixture
def secrets(secrets_manager: str):
    return boto3.client(
        "secretsmanager", REGION, endpoint_url=secrets_manager, aws_access_key_id="x", aws_secret_access_key="x"
    )


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One of this module's own, without the logins that the suite's has: RDS begins without them, and roles belong to
    a server, not to a database."""
    with tempfile.TemporaryDirectory(prefix="nexmdm-rds-") as folder, embedded.start(Path(folder) / "data") as url:
        yield url


@pytest.fixture
def empty(server: str) -> Iterator[str]:
    """The name of an empty database with the roles that Aurora begins with: its administrator and `rds_iam`."""
    name = f"rds_{uuid.uuid4().hex[:12]}"
    run_sql(server, *(f"DROP ROLE IF EXISTS {role}" for role in ROLES))
    run_sql(server, f"CREATE ROLE {ADMIN} LOGIN CREATEROLE", "CREATE ROLE rds_iam")
    run_sql(server, f"GRANT rds_iam TO {ADMIN} WITH ADMIN OPTION", f"CREATE DATABASE {name} OWNER {ADMIN}")
    yield name
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)", *(f"DROP ROLE IF EXISTS {role}" for role in ROLES))


@pytest.fixture
def lambda_(server: str, empty: str, tmp_path: Path, monkeypatch, secrets_manager: str, secrets) -> Iterator[Door]:
    """That database behind RDS's front door, as the template's variables describe it."""
    name, own = empty, url_of(server, empty)
    arn = secrets.create_secret(Name=name, SecretString=json.dumps({"username": ADMIN, "password": ADMIN_PASSWORD}))[
        "ARN"
    ]
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with rds(own, tmp_path) as door:
        for key, value in {
            "DATABASE_HOST": door.host,
            "DATABASE_PORT": str(door.port),
            "DATABASE_NAME": name,
            "DATABASE_USER": "nexmdm_owner",
            "DATABASE_CA_BUNDLE": str(door.ca_bundle),
            "DATABASE_ADMIN_SECRET": arn,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": secrets_manager,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY.access_key,
            "AWS_SECRET_ACCESS_KEY": KEY.secret_key,
            "AWS_SESSION_TOKEN": KEY.token,
        }.items():
            monkeypatch.setenv(key, value)
        forget()
        yield door
        database.connection().close()
    forget()


def forget() -> None:
    """As a new environment begins."""
    settings.load.cache_clear()
    database.connection.cache_clear()
    stored_secrets.resolve.cache_clear()


def as_app(monkeypatch) -> database.Database:
    monkeypatch.setenv("DATABASE_USER", "nexmdm_app")
    forget()
    return database.connection()


def test_roles_migrations_and_rows(lambda_, monkeypatch):
    roles.ensure(settings.load())
    roles.ensure(settings.load())  # the next deploy
    owner = database.connection()
    owner.execute("CREATE TABLE made_by_the_owner (id int GENERATED ALWAYS AS IDENTITY, what text)")
    assert owner.execute("SELECT current_user AS me, pg_has_role('rds_iam', 'member') AS iam") == [
        {"me": "nexmdm_owner", "iam": True}
    ]
    app = as_app(monkeypatch)
    assert app.execute("INSERT INTO made_by_the_owner (what) VALUES ('x') RETURNING id") == [{"id": 1}]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        app.execute("DROP TABLE made_by_the_owner")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        app.execute("CREATE TABLE made_by_the_app (id int)")


def test_each_connection_has_a_token_of_its_own(lambda_, monkeypatch):
    roles.ensure(settings.load())
    db, made = database.connection(), len(lambda_.logins)
    db.execute("SELECT 1")
    db.close()
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: LONG_AGO)
    with pytest.raises(Unavailable):  # the token of another day is refused, and an outage to the caller
        db.execute("SELECT 1")
    users = [user for user, _ in lambda_.logins[made:]]
    tokens = {token for _, token in lambda_.logins[made:]}
    assert users == ["nexmdm_owner"] * 2
    assert len(tokens) == 2


def test_a_certificate_of_somebody_else_is_refused(lambda_, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    from tests.support.rds import certificates

    certificates(other)
    monkeypatch.setenv("DATABASE_CA_BUNDLE", str(other / "ca.pem"))
    forget()
    with pytest.raises(Unavailable) as raised:
        database.connection().execute("SELECT 1")
    assert "SSL error" in str(raised.value.__cause__)
    assert lambda_.logins == []  # no token left this machine


def test_a_server_by_another_name_is_refused(lambda_, monkeypatch):
    monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
    forget()
    with pytest.raises(Unavailable) as raised:
        database.connection().execute("SELECT 1")
    assert "127.0.0.1" in str(raised.value.__cause__)
    assert lambda_.logins == []


def test_alembic_goes_the_same_way(lambda_, monkeypatch):
    roles.ensure(settings.load())
    upgraded = alembic("", "upgrade", "head")
    assert upgraded.returncode == 0, upgraded.stderr
    assert database.connection().execute("SELECT tableowner FROM pg_tables WHERE tablename = 'fcm_dispatches'") == [
        {"tableowner": "nexmdm_owner"}
    ]
    app = as_app(monkeypatch)
    assert app.execute("SELECT count(*) AS n FROM devices") == [{"n": 0}]
    assert {user for user, _ in lambda_.logins} == {ADMIN, "nexmdm_owner", "nexmdm_app"}


def test_a_secret_by_its_arn(lambda_, secrets):
    made = secrets.create_secret(Name="hmac", SecretString="the key")
    assert stored_secrets.resolve(made["ARN"]) == "the key"
    secrets.update_secret(SecretId="hmac", SecretString="the next key")
    assert stored_secrets.resolve(made["ARN"]) == "the key"  # until the environment ends
    assert stored_secrets.fetch(made["ARN"]) == "the next key"


def test_a_secret_that_is_not_there_is_named(lambda_):
    arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:none-abcdef"
    with pytest.raises(SettingsError, match=r"none-abcdef cannot be read: .*ResourceNotFoundException"):
        stored_secrets.resolve(arn)


def test_secrets_manager_in_silence_is_an_outage(lambda_, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:9/")
    forget()
    with pytest.raises(Unavailable, match="Secrets Manager"):
        stored_secrets.resolve(f"arn:aws:secretsmanager:{REGION}:123456789012:secret:none-abcdef")
