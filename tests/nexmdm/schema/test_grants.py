"""The rights of the functions' logins: none is missing, none is unlisted, and device logins cannot command anything."""

import psycopg2
import pytest
from nexmdm.runtime import settings
from nexmdm.schema import grants
from nexmdm.schema.grants import APP, DEVICE, FUNCTIONS, ROLES, TABLES
from nexmdm.schema.models import Base
from sqlalchemy import Connection, create_engine

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
DECLARED = [
    (role, privilege, column, table)
    for table, of_roles in TABLES.items()
    for role, rights in of_roles.items()
    for privilege, column in grants.parsed(rights)
]
UNDECLARED = [
    (role, privilege, table)
    for table in TABLES.keys() - {"old_server_values"}  # exists only in an adopted database
    for role in ROLES
    for privilege in PRIVILEGES
    if (privilege, "") not in grants.parsed(TABLES[table].get(role, ""))
]
# What a stolen login of a device function must not do: command a phone, enroll one, or offer it software.
COMMANDING = [
    "INSERT INTO fcm_dispatches (request_id, device_id, action, expires_at) VALUES ('r', 'd', 'reboot', now())",
    "UPDATE fcm_dispatches SET action = 'reboot'",
    "UPDATE fcm_dispatches SET payload = '{}'",
    "UPDATE fcm_dispatches SET device_id = 'd'",
    "UPDATE fcm_dispatches SET expires_at = now() + interval '1 day'",
    "INSERT INTO command_batches (request_id, payload_hash, selector, device_count) VALUES ('b', 'h', '{}', 1)",
    "INSERT INTO enrollment_tokens (token_id, alias, token_hash, expires_at) VALUES ('t', 'a', 'h', now())",
    "UPDATE enrollment_tokens SET uses_allowed = 1000",
    "UPDATE enrollment_tokens SET alias = 'another'",
    "UPDATE enrollment_tokens SET expires_at = now() + interval '1 year'",
    "INSERT INTO apk_versions (version_name, version_code, file_path, file_size, state) VALUES ('1', 1, 'x', 1, 'x')",
    "UPDATE apk_versions SET sha256 = 'x'",
    "UPDATE apk_versions SET file_path = 'x'",
    "UPDATE apk_versions SET is_current = true",
    "UPDATE apk_versions SET staged_rollout_percent = 100",
    "INSERT INTO apk_signers (package_name, fingerprint) VALUES ('p', 'f')",
    "INSERT INTO apk_installations (device_id, apk_version_id, status) VALUES ('d', 1, 'pending')",
    "INSERT INTO device_alerts (device_id, condition) VALUES ('d', 'silent')",
    "INSERT INTO alert_rules (name, condition) VALUES ('r', 'silent')",
    "UPDATE alert_rules SET enabled = false",
    "DELETE FROM alert_mutes",
    "UPDATE devices SET deleted_at = NULL",
    "DELETE FROM device_heartbeats",
    "DELETE FROM devices",
    "CREATE TABLE own (n int)",
]


@pytest.fixture
def connection(url: str):
    engine = create_engine(settings.load().sqlalchemy_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def without(connection: Connection, statement: str) -> list[str]:
    """The differences of rights after `statement` has run; it is rolled back."""
    with connection.begin() as transaction:
        connection.exec_driver_sql(statement)
        lines = list(grants.differences(connection))
        transaction.rollback()
    return lines


def test_every_table_has_an_entry():
    assert set(Base.metadata.tables) <= set(TABLES)


def test_migrated_database_has_exactly_the_listed_rights(connection):
    assert list(grants.differences(connection)) == []


def test_every_missing_right_is_found(connection):
    for role, privilege, column, table in DECLARED:
        what = f"{privilege} ({column})" if column else privilege
        lines = without(connection, f"REVOKE {what} ON {table} FROM {role}")
        expected = f"{table}: {role} lacks a right; fix: GRANT {what} ON TABLE {table} TO {role}"
        assert expected in lines


def test_every_surplus_right_is_found(connection):
    for role, privilege, table in UNDECLARED:
        lines = without(connection, f"GRANT {privilege} ON {table} TO {role}")
        assert lines == [
            f"{table}: {role} has an additional right; fix: REVOKE {privilege} ON TABLE {table} FROM {role}"
        ]


@pytest.mark.parametrize(
    "statement",
    [
        "GRANT UPDATE (deleted_at) ON devices TO nexmdm_device",
        "GRANT SELECT (id) ON devices TO nexmdm_device",
        "GRANT UPDATE ON SEQUENCE device_alerts_id_seq TO nexmdm_app",
        "GRANT USAGE ON SEQUENCE device_alerts_id_seq TO nexmdm_device",
        "GRANT EXECUTE ON FUNCTION record_heartbeats_v1 TO PUBLIC",
        "CREATE FUNCTION of_the_test() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE of_the_test (n int); GRANT SELECT ON of_the_test TO nexmdm_device",
        "GRANT SELECT ON device_heartbeats_default TO nexmdm_device",
        "CREATE VIEW of_the_test AS SELECT 1 AS n; GRANT SELECT ON of_the_test TO nexmdm_device",
        "GRANT CREATE ON SCHEMA public TO nexmdm_device",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO nexmdm_device",
        "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO nexmdm_app",
        "GRANT nexmdm_owner TO nexmdm_device",
        "ALTER ROLE nexmdm_device CREATEROLE",
    ],
)
def test_unlisted_right_is_found_on_any_object(connection, statement):
    lines = without(connection, statement)
    assert len(lines) == 1, lines
    assert "fix: " in lines[0]


def test_role_created_later_gets_its_rights(connection):
    """As after a restore into a stack whose logins did not exist when the revisions ran."""
    with connection.begin() as transaction:
        for role in ROLES:
            connection.exec_driver_sql(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
            connection.exec_driver_sql(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}")
            connection.exec_driver_sql(f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM {role}")
        assert list(grants.differences(connection))
        grants.ensure(connection)
        assert list(grants.differences(connection)) == []
        transaction.rollback()


@pytest.mark.parametrize("statement", COMMANDING)
def test_device_login_cannot_command_anything(connection, statement):
    with connection.begin() as transaction:
        connection.exec_driver_sql(f"SET LOCAL ROLE {DEVICE}")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            connection.connection.cursor().execute(statement)
        transaction.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE devices SET alias = 'another', alias_key = 'another'",
        """UPDATE devices SET labels = '{"role": "till"}'""",
        "UPDATE devices SET token_id = 'its own'",
        "UPDATE enrollment_tokens SET status = 'revoked'",
        "UPDATE enrollment_tokens SET status = 'active', uses_consumed = 0",
    ],
)
def test_device_login_can_do_what_the_documentation_lists(connection, statement):
    """Covers docs/access.md, "Database logins". If one of these is refused one day, change the table there."""
    with connection.begin() as transaction:
        connection.exec_driver_sql("INSERT INTO devices (id, alias) VALUES ('d', 'lobby')")
        connection.exec_driver_sql(
            "INSERT INTO enrollment_tokens (token_id, alias, token_hash, expires_at, status, uses_consumed)"
            " VALUES ('t', 'lobby', 'h', now(), 'exhausted', 1)"
        )
        connection.exec_driver_sql(f"SET LOCAL ROLE {DEVICE}")
        assert connection.exec_driver_sql(statement).rowcount == 1
        connection.exec_driver_sql("RESET ROLE")
        assert connection.exec_driver_sql("SELECT count(*) FROM operator_events").scalar() == 0
        transaction.rollback()


def test_app_login_may_do_everything_a_device_login_may():
    for table, of_roles in TABLES.items():
        everything = set(grants.parsed(of_roles.get(APP, "")))
        for privilege, _ in grants.parsed(of_roles.get(DEVICE, "")):
            assert (privilege, "") in everything, table
    assert all(APP in roles for roles in FUNCTIONS.values() if DEVICE in roles)
