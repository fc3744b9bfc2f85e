"""The database as Lambda reaches it: TLS with host name check, IAM tokens, passwordless roles, secrets by ARN."""

import json
import re
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
from local.rds.door import ADMIN, ADMIN_PASSWORD, KEY, REGION, Door, rds
from local.rds.server import DATABASE, Server, aurora
from tests.support.api import ROOT
from tests.support.postgres import upgrade

pytestmark = pytest.mark.long

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def aurora_() -> Iterator[Server]:
    with aurora() as server:
        yield server


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[str]:
    with s3.running() as url:  # moto serves every service at one URL
        yield f"{url}/"


@pytest.fixture
def secrets(secrets_manager: str):
    return boto3.client(
        "secretsmanager", REGION, endpoint_url=secrets_manager, aws_access_key_id="x", aws_secret_access_key="x"
    )


@pytest.fixture
def lambda_(aurora_: Server, tmp_path: Path, monkeypatch, secrets_manager: str, secrets) -> Iterator[Door]:
    """A database set up as Aurora does, behind a fake RDS endpoint, with the variables that the template sets."""
    aurora_.begin_anew()
    text = json.dumps({"username": ADMIN, "password": ADMIN_PASSWORD})
    arn = secrets.create_secret(Name=f"admin-{uuid.uuid4()}", SecretString=text)["ARN"]
    monkeypatch.delenv("DATABASE_URL", raising=False)
    url = f"postgresql:///{DATABASE}?host={aurora_.socket}&port={aurora_.port}"
    with rds(url, tmp_path, aurora_) as door:
        for key, value in {
            "DATABASE_HOST": door.host,
            "DATABASE_PORT": str(door.port),
            "DATABASE_NAME": DATABASE,
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
    """Forget all cached state, as a new Lambda environment would."""
    settings.load.cache_clear()
    database.connection.cache_clear()
    stored_secrets.resolve.cache_clear()


def logged_in_as(monkeypatch, user: str) -> database.Database:
    monkeypatch.setenv("DATABASE_USER", user)
    forget()
    return database.connection()


def memberships(server: Server) -> set[tuple[str, str, bool]]:
    """(member, role, may grant it to others) for all of the project's roles."""
    rows = server.run(
        "SELECT member::regrole::text, roleid::regrole::text, admin_option FROM pg_auth_members"
        " WHERE member::regrole::text LIKE 'nexmdm%'"
    )
    return {tuple(row) for row in rows}


def migrated(lambda_: Door) -> list[str]:
    """Do a deploy's work on the database: roles, then revisions. Returns who logged in."""
    before = len(lambda_.logins)
    forget()
    roles.ensure(settings.load(), wait_seconds=0)
    upgrade("")
    return [user for user, _ in lambda_.logins[before:]]


def test_repeated_deploys_create_each_role_once_and_add_a_new_one(lambda_, aurora_, monkeypatch):
    monkeypatch.setattr(roles, "LOGINS", (roles.APP,))  # a previous release with one login
    first = migrated(lambda_)
    assert first[:2] == ["nexmdm_owner", ADMIN]  # the owner's login is tried first; it does not exist yet
    assert ADMIN not in first[2:]
    assert memberships(aurora_) == {
        (ADMIN, "nexmdm_owner", True),  # PostgreSQL 16 and later: CREATE ROLE grants this
        ("nexmdm_owner", "rds_iam", True),
        ("nexmdm_owner", "nexmdm_app", True),
        ("nexmdm_app", "rds_iam", False),
    }
    second = migrated(lambda_)
    assert set(second) == {"nexmdm_owner"}
    monkeypatch.setattr(roles, "LOGINS", (roles.APP, roles.DEVICE))  # the next release
    third = migrated(lambda_)
    assert set(third) == {"nexmdm_owner"}
    device = logged_in_as(monkeypatch, "nexmdm_device")
    assert device.execute("SELECT current_user AS me, pg_has_role('rds_iam', 'member') AS iam") == [
        {"me": "nexmdm_device", "iam": True}
    ]
    device.close()


def test_administrator_password_works_only_for_the_first_deploy(lambda_):
    """Why the owner logs in first: RDS accepts no password of a member of rds_iam, not even of an indirect one."""
    config = settings.load()
    admin = database.Database(config.dsn_of(ADMIN, ADMIN_PASSWORD))
    admin.execute("SELECT 1")
    admin.close()
    roles.ensure(config, wait_seconds=0)
    with pytest.raises(Unavailable) as raised:
        admin.execute("SELECT 1")
    assert "pg_hba.conf rejects" in str(raised.value.__cause__)
    roles.ensure(config, wait_seconds=0)


def test_error_names_both_failed_logins(lambda_, secrets):
    secrets.update_secret(
        SecretId=settings.load().database_admin_secret,
        SecretString=json.dumps({"username": ADMIN, "password": "s3cr3t"}),
    )
    with pytest.raises(Unavailable) as raised:
        roles.ensure(settings.load(), wait_seconds=0)
    told = raised.value.detail
    assert re.search(r"nexmdm_owner by IAM: localhost:\d+: .*(not exist|rejects)", told), told
    assert re.search(r"administrator by password: localhost:\d+: .*password authentication failed", told), told
    assert "s3cr3t" not in told


def test_both_logins_wait_for_a_database_that_resumes(lambda_, aurora_, monkeypatch):
    """The endpoint refuses connections until the third attempt."""
    refused = []

    def knock(self: Door, client: object) -> None:
        if len(refused) < 3:
            refused.append(client)
            client.close()
        else:
            served(self, client)

    served = Door._serve
    monkeypatch.setattr(Door, "_serve", knock)
    roles.ensure(settings.load(), wait_seconds=60)
    assert len(refused) == 3
    assert (("nexmdm_owner", "rds_iam", True)) in memberships(aurora_)


def test_only_the_owner_can_create_objects(lambda_, monkeypatch):
    migrated(lambda_)
    owner = database.connection()
    owner.execute("CREATE TABLE made_by_the_owner (id int GENERATED ALWAYS AS IDENTITY, what text)")
    for user in roles.LOGINS:
        other = logged_in_as(monkeypatch, user)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            other.execute("DROP TABLE made_by_the_owner")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            other.execute("CREATE TABLE made_by_another (id int)")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            other.execute("CREATE ROLE made_by_another")
        other.close()


def test_each_connection_gets_its_own_token(lambda_, monkeypatch):
    roles.ensure(settings.load(), wait_seconds=0)
    db, made = database.connection(), len(lambda_.logins)
    db.execute("SELECT 1")
    db.close()
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: LONG_AGO)
    with pytest.raises(Unavailable):  # an expired token is refused, which is an outage to the caller
        db.execute("SELECT 1")
    users = [user for user, _ in lambda_.logins[made:]]
    tokens = {token for _, token in lambda_.logins[made:]}
    assert users == ["nexmdm_owner"] * 2
    assert len(tokens) == 2


def test_certificate_of_another_authority_is_refused(lambda_, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    from local.rds.door import certificates

    certificates(other)
    monkeypatch.setenv("DATABASE_CA_BUNDLE", str(other / "ca.pem"))
    forget()
    with pytest.raises(Unavailable) as raised:
        database.connection().execute("SELECT 1")
    assert "SSL error" in str(raised.value.__cause__)
    assert lambda_.logins == []  # no token was sent


def test_server_with_another_host_name_is_refused(lambda_, monkeypatch):
    monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
    forget()
    with pytest.raises(Unavailable) as raised:
        database.connection().execute("SELECT 1")
    assert "127.0.0.1" in str(raised.value.__cause__)
    assert lambda_.logins == []


def test_alembic_connects_in_the_same_way(lambda_, monkeypatch):
    assert migrated(lambda_)[-1] == "nexmdm_owner"
    assert database.connection().execute("SELECT tableowner FROM pg_tables WHERE tablename = 'fcm_dispatches'") == [
        {"tableowner": "nexmdm_owner"}
    ]
    app = logged_in_as(monkeypatch, "nexmdm_app")
    assert app.execute("SELECT count(*) AS n FROM devices") == [{"n": 0}]
    assert {user for user, _ in lambda_.logins} == {ADMIN, "nexmdm_owner", "nexmdm_app"}


def test_secret_is_resolved_by_its_arn(lambda_, secrets):
    made = secrets.create_secret(Name="hmac", SecretString="the key")
    assert stored_secrets.resolve("COMMAND_HMAC_KEY", made["ARN"]) == "the key"
    secrets.update_secret(SecretId="hmac", SecretString="the next key")
    assert stored_secrets.resolve("COMMAND_HMAC_KEY", made["ARN"]) == "the key"  # cached until the environment ends
    assert stored_secrets.fetch("COMMAND_HMAC_KEY", made["ARN"]) == "the next key"


def test_missing_secret_is_named(lambda_):
    arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:none-abcdef"
    with pytest.raises(SettingsError, match=r"none-abcdef cannot be read: .*ResourceNotFoundException"):
        stored_secrets.resolve("COMMAND_HMAC_KEY", arn)


def test_silent_secrets_manager_is_an_outage(lambda_, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:9/")
    forget()
    with pytest.raises(Unavailable, match="Secrets Manager"):
        stored_secrets.resolve("COMMAND_HMAC_KEY", f"arn:aws:secretsmanager:{REGION}:123456789012:secret:none-abcdef")


def test_database_of_a_previous_server_is_adopted_as_documented(lambda_, aurora_):
    """Covers docs/deploy.md#database-access: what the administrator runs before the first deploy to such a database."""
    config = settings.load()
    admin = database.Database(config.dsn_of(ADMIN, ADMIN_PASSWORD))
    admin.execute("CREATE ROLE old LOGIN")
    admin.execute("GRANT old TO CURRENT_USER WITH INHERIT TRUE, SET TRUE")
    admin.execute("GRANT CREATE ON SCHEMA public TO old")
    aurora_.run("SET ROLE old", "CREATE TABLE battery_whitelist (id int)", database=DATABASE)
    text = (ROOT / "docs" / "deploy.md").read_text()
    [script] = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    for statement in script.split(";"):
        if statement.strip():
            admin.execute(statement)
    admin.close()
    migrated(lambda_)
    owner = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert aurora_.run(owner, database=DATABASE) == [("nexmdm_owner",)]
