"""Explicit privileges for the logins of the functions

Revision ID: c4f81b6d2e05
Revises: c0a1d5e7b204

nexmdm_app had all privileges on every table, by default privileges. It keeps those that its functions use, including
the functions of the previous release, which all log in as nexmdm_app. nexmdm_device gets those that the functions for
devices need.
"""

from alembic import op

from migrations import grants

revision = "c4f81b6d2e05"
down_revision = "c0a1d5e7b204"
branch_labels = None
depends_on = None

APP = {
    "apk_download_events": "SELECT, INSERT",
    "apk_installations": "SELECT, INSERT, UPDATE",
    "apk_signers": "SELECT, INSERT, DELETE",
    "apk_versions": "SELECT, INSERT, UPDATE",
    "command_batches": "SELECT, INSERT",
    "device_alerts": "SELECT, INSERT, UPDATE",
    "device_heartbeats": "SELECT, INSERT",
    "device_last_status": "SELECT, INSERT, UPDATE",
    "devices": "SELECT, INSERT, UPDATE",
    "enrollment_tokens": "SELECT, INSERT, UPDATE",
    "fcm_dispatches": "SELECT, INSERT, UPDATE",
    "registration_refusals": "SELECT, INSERT, UPDATE",
}
DEVICE = {
    "apk_download_events": "SELECT, INSERT (build_id, source, token_id, device_id, ip, ts)",
    "apk_installations": "SELECT, UPDATE (status, completed_at, download_progress, error_message)",
    "apk_versions": (
        "SELECT, UPDATE (downloads_issued, rollout_completed, rollout_failed, paused_at, paused_reason, audit)"
    ),
    "device_heartbeats": "SELECT, INSERT",
    "device_last_status": "SELECT, INSERT, UPDATE",
    "devices": (
        "SELECT, INSERT (id, alias, token_id, hardware_id, enrollment_token_id), UPDATE (token_id, prior_token_id,"
        " confirmed_at, fcm_token, fcm_token_at, hardware_id, enrollment_token_id, model, manufacturer,"
        " android_version, sdk_int, build_id, is_device_owner)"
    ),
    "enrollment_tokens": "SELECT, UPDATE (uses_consumed, status, last_used_at, used_at, device_id)",
    "fcm_dispatches": (
        "SELECT, UPDATE (state, fence, lease_until, next_at, secrets, completed_at, result, result_message, audit)"
    ),
    "registration_refusals": "SELECT, INSERT, UPDATE",
}
FUNCTIONS = ("record_heartbeats_v1", "complete_command_v1")


def upgrade() -> None:
    db = op.get_bind()
    for role in grants.present(db):
        for objects in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            op.execute(f"REVOKE ALL ON ALL {objects} IN SCHEMA public FROM {role}")
            op.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON {objects} FROM {role}")
    for table, rights in APP.items():
        grants.grant(db, table, nexmdm_app=rights)
    for table, rights in DEVICE.items():
        grants.grant(db, table, nexmdm_device=rights)
    for function in FUNCTIONS:
        grants.execute(db, function, "nexmdm_app", "nexmdm_device")


def downgrade() -> None:
    """The previous release created no login but nexmdm_app."""
    if "nexmdm_app" in grants.present(op.get_bind()):
        op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO nexmdm_app")
        op.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO nexmdm_app")
    if grants.present(op.get_bind()):
        for function in FUNCTIONS:
            op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
