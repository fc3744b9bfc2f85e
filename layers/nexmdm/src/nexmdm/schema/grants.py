"""The rights of each database role, in a single list that `make check-schema` compares the database with.

nexmdm_device is the login of the functions that can be called without AWS credentials: heartbeat, device_reports,
apk_download, registration. It reads and settles the data of devices, but cannot create a command, enrollment token,
build or alert rule, nor change their contents. nexmdm_app is the login of the operators' functions, the sweep and the
watch; it also has the rights of nexmdm_device, because code of the previous release logs in as nexmdm_app everywhere.
nexmdm_owner owns the tables and is used by migrations and cleanup. PUBLIC has no rights.

A new table, or a new column that device functions write, needs a line here and the same rights in its revision:

    from migrations import grants
    grants.grant(op.get_bind(), "device_groups", nexmdm_app="SELECT, INSERT, UPDATE, DELETE")
    grants.execute(op.get_bind(), "record_heartbeats_v2", "nexmdm_app", "nexmdm_device")

Rights are written in the syntax of GRANT. INSERT includes the right to use the table's sequences.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection

from nexmdm.devices.fields import OF_DEVICE, RECORD_HEARTBEATS, columns
from nexmdm.runtime.database import statement

APP, DEVICE, OWNER = "nexmdm_app", "nexmdm_device", "nexmdm_owner"
ROLES = (APP, DEVICE)

# Table or view -> role -> rights.
TABLES: dict[str, dict[str, str]] = {
    "alembic_version": {},
    "apk_download_events": {
        APP: "SELECT, INSERT",
        # Without admin_user, because a device function records no operator.
        DEVICE: "SELECT, INSERT (build_id, source, token_id, device_id, ip, ts)",
    },
    "apk_download_rates": {APP: "SELECT, INSERT, UPDATE", DEVICE: "SELECT, INSERT, UPDATE"},
    "apk_installations": {
        APP: "SELECT, INSERT, UPDATE",
        DEVICE: ("SELECT, UPDATE (status, completed_at, download_progress, error_message, installing_at, claimed_at)"),
    },
    "apk_signers": {APP: "SELECT, INSERT, DELETE"},
    "apk_versions": {
        APP: "SELECT, INSERT, UPDATE",
        # Reports are counted, and pause a rollout that fails too often.
        DEVICE: "SELECT, UPDATE (downloads_issued, rollout_completed, rollout_failed, paused_at, paused_reason, audit)",
    },
    "command_batches": {APP: "SELECT, INSERT"},
    "alert_mutes": {APP: "SELECT, INSERT, DELETE"},
    "alert_rules": {APP: "SELECT, INSERT, UPDATE, DELETE"},
    "device_alerts": {APP: "SELECT, INSERT, UPDATE, DELETE"},
    "device_apps": {APP: "SELECT, INSERT, UPDATE", DEVICE: "SELECT, INSERT, UPDATE"},
    "device_group_uses": {APP: "SELECT"},
    "device_groups": {APP: "SELECT, INSERT, UPDATE, DELETE", DEVICE: "SELECT"},
    # Written by cleanup, as the owner.
    "device_history": {APP: "SELECT"},
    "device_heartbeats": {APP: "SELECT, INSERT", DEVICE: "SELECT, INSERT"},
    "device_last_status": {APP: "SELECT, INSERT, UPDATE", DEVICE: "SELECT, INSERT, UPDATE"},
    "devices": {
        APP: "SELECT, INSERT, UPDATE",
        DEVICE: (
            "SELECT, INSERT (id, alias, alias_key, token_id, hardware_id, enrollment_token_id, labels),"
            " UPDATE (alias, alias_key, token_id,"
            " prior_token_id, older_token_ids, confirmed_at, fcm_token, fcm_token_at, unregistered_fcm_token,"
            f" hardware_id, enrollment_token_id, taken_over_at, labels, {columns(OF_DEVICE)})"
        ),
    },
    "enrollment_tokens": {
        APP: "SELECT, INSERT, UPDATE",
        DEVICE: "SELECT, UPDATE (uses_consumed, status, last_used_at, used_at, device_id)",
    },
    "fcm_dispatches": {
        APP: "SELECT, INSERT, UPDATE",
        # An answer settles its dispatch, and a re-enrolled phone's earlier dispatches are cancelled.
        DEVICE: (
            "SELECT, UPDATE (state, fence, lease_until, next_at, secrets, completed_at, result, result_message, audit)"
        ),
    },
    "fleet_history": {APP: "SELECT, INSERT"},
    "old_server_values": {},
    # Append only; cleanup removes old ones as their owner.
    "operator_events": {APP: "SELECT, INSERT"},
    "schedule_runs": {APP: "SELECT, INSERT, UPDATE"},
    "schedules": {APP: "SELECT, INSERT, UPDATE, DELETE"},
    "registration_refusals": {APP: "SELECT, INSERT, UPDATE", DEVICE: "SELECT, INSERT, UPDATE"},
}
# Function -> roles that may call it. A trigger function needs none.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "authenticate_device_v1": ROLES,
    "complete_command_v1": ROLES,
    # The filter of a rollout is evaluated for a device that asks for a build.
    "device_matches": ROLES,
    "device_online": ROLES,
    "label_integer": ROLES,
    "labels_match": ROLES,
    "monitored_package_v1": (APP,),
    "offered_build_v1": ROLES,
    "record_heartbeats_v1": ROLES,
    "record_heartbeats_v2": ROLES,
    RECORD_HEARTBEATS: ROLES,
    "store_fcm_token_v1": ROLES,
    "take_fcm_token_v1": (),
    "record_system_event_v1": ROLES,
    "record_system_event_v2": ROLES,
    "reported_version_v1": ROLES,
    "reported_version_v2": ROLES,
    "rollout_bucket_v1": ROLES,
    "rollout_reaches_v1": ROLES,
    "target_hash": (APP,),
}


class Right(NamedTuple):
    """column: empty for the whole object."""

    role: str
    kind: str
    name: str
    privilege: str
    column: str = ""

    def __str__(self) -> str:
        column = f" ({self.column})" if self.column else ""
        return f"{self.privilege}{column} ON {self.kind} {self.name}"


def differences(db: Connection) -> Iterator[str]:
    """One line per missing or additional right of a role; none if the roles do not exist."""
    present = roles(db)
    if not present:
        return
    declared, actual = _declared(db, present), _actual(db, present)
    for right in sorted(declared - actual):
        yield f"{right.name}: {right.role} lacks a right; fix: GRANT {right} TO {right.role}"
    for right in sorted(actual - declared):
        yield f"{right.name}: {right.role} has an additional right; fix: REVOKE {right} FROM {right.role}"
    for role, member_of in rows(db, _MEMBERSHIPS.format(roles=_quoted(present))):
        yield f"{role}: it is a member of {member_of}; fix: REVOKE {member_of} FROM {role}"
    for role, attribute in rows(db, _ATTRIBUTES.format(roles=_quoted(present))):
        yield f"{role}: it has the attribute {attribute}; fix: ALTER ROLE {role} NO{attribute}"
    for role, kind in rows(db, _DEFAULTS.format(roles=_quoted(present))):
        yield f"{role}: it gets rights on every new {kind}; fix: ALTER DEFAULT PRIVILEGES REVOKE them"


def ensure(db: Connection) -> None:
    """Grant missing rights, as for a role that was created after the revisions had run. Revokes nothing."""
    present = roles(db)
    for right in sorted(_declared(db, present) - _actual(db, present)):
        db.exec_driver_sql(f"GRANT {right} TO {right.role}")


def roles(db: Connection) -> list[str]:
    """The roles that exist."""
    return [row[0] for row in rows(db, f"SELECT rolname FROM pg_roles WHERE rolname IN ({_quoted(ROLES)})")]


def _declared(db: Connection, present: list[str]) -> set[Right]:
    found = set()
    tables = {row[0] for row in rows(db, _TABLES)}
    sequences: dict[str, list[str]] = {}
    for table, sequence in rows(db, _SEQUENCES):
        sequences.setdefault(table, []).append(sequence)
    for table in TABLES.keys() & tables:
        for role in TABLES[table].keys() & set(present):
            rights = list(parsed(TABLES[table][role]))
            found |= {Right(role, "TABLE", table, privilege, column) for privilege, column in rights}
            if any(privilege == "INSERT" for privilege, _ in rights):
                found |= {Right(role, "SEQUENCE", sequence, "USAGE") for sequence in sequences.get(table, ())}
    functions = {row[0] for row in rows(db, _FUNCTIONS)}
    for function in FUNCTIONS.keys() & functions:
        found |= {Right(role, "FUNCTION", function, "EXECUTE") for role in FUNCTIONS[function] if role in present}
    return found


def parsed(rights: str) -> Iterator[tuple[str, str]]:
    """(privilege, column) pairs from GRANT syntax."""
    for privilege, named in re.findall(r"([A-Z]+)(?: \(([^)]*)\))?", rights):
        for column in named.split(",") if named else [""]:
            yield privilege, column.strip()


def _actual(db: Connection, present: list[str]) -> set[Right]:
    return {Right(*row) for row in rows(db, _ACTUAL.format(roles=_quoted(present)))} if present else set()


def _quoted(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def rows(db: Connection, sql: str) -> list[Any]:
    """The rows of a statement without parameters."""
    return list(db.exec_driver_sql(sql, execution_options={"no_parameters": True}))


_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition
"""

_FUNCTIONS = "SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"

# The sequences of serial columns, with their actual names, which differ in an adopted database.
_SEQUENCES = """
SELECT t.relname, s.relname FROM pg_depend d
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_class t ON t.oid = d.refobjid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
  AND t.relnamespace = current_schema()::regnamespace
"""

_ACTUAL = statement(__package__, "rights")

# Membership in rds_iam is required for logging in.
_MEMBERSHIPS = """
SELECT m.rolname, r.rolname FROM pg_auth_members a
JOIN pg_roles m ON m.oid = a.member JOIN pg_roles r ON r.oid = a.roleid
WHERE m.rolname IN ({roles}) AND r.rolname <> 'rds_iam'
"""

_ATTRIBUTES = """
SELECT rolname, attribute FROM pg_roles CROSS JOIN LATERAL (VALUES
    ('SUPERUSER', rolsuper), ('CREATEROLE', rolcreaterole), ('CREATEDB', rolcreatedb), ('BYPASSRLS', rolbypassrls),
    ('REPLICATION', rolreplication)) AS a(attribute, has)
WHERE rolname IN ({roles}) AND has
"""

_DEFAULTS = """
SELECT r.rolname, CASE defaclobjtype WHEN 'r' THEN 'table' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'function'
    ELSE 'type or schema' END
FROM pg_default_acl CROSS JOIN LATERAL aclexplode(defaclacl) AS a JOIN pg_roles r ON r.oid = a.grantee
WHERE r.rolname IN ({roles}) AND defaclnamespace IN (0, current_schema()::regnamespace)
GROUP BY 1, 2
"""
