"""What goes beyond the documents: the constraints and columns that keep the promises

Revision ID: e8a41f63d7c2
Revises: b5d0c2f4a917
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.adoption import last_status as old_last_status

revision = "e8a41f63d7c2"
down_revision = "b5d0c2f4a917"
branch_labels = None
depends_on = None

INSTANT = sa.TIMESTAMP(timezone=True)
NOW = sa.func.now()

DEVICE_COLUMNS = {
    "prior_token_id": sa.Text,
    "confirmed_at": INSTANT,
    "hardware_id": sa.Text,
    "enrollment_token_id": sa.Text,
    "fcm_token_at": INSTANT,
    "deleted_at": INSTANT,
    "deleted_by": sa.Text,
}
REPORT_COLUMNS = {
    "power_ok": sa.Boolean,
    "doze_whitelisted": sa.Boolean,
    "net_validated": sa.Boolean,
    "queue_depth": sa.Integer,
}
DISPATCH_COLUMNS = ("state", "fence", "attempts", "lease_until", "next_at", "expires_at", "fcm_expires_at", "payload",
                    "secrets", "batch_id", "created_by", "created_at", "audit")  # fmt: skip


def upgrade() -> None:
    # Rewrites what an old server left, with that server stopped; nothing else ever had rows at this revision.
    op.execute("SET LOCAL statement_timeout = 0")
    devices()
    enrollment_tokens()
    heartbeats()
    last_status()
    old_last_status.carry_over(op.get_bind())
    commands()
    downloads()


def downgrade() -> None:
    op.drop_constraint("ck_apk_download_events_source", "apk_download_events")
    op.drop_constraint("fk_apk_download_events_token_id", "apk_download_events")
    op.drop_column("apk_download_events", "device_id")
    for index in ("batch_id", "created_at", "open", "pending"):
        op.drop_index(f"ix_fcm_dispatches_{index}", "fcm_dispatches")
    for name in DISPATCH_COLUMNS:
        op.drop_column("fcm_dispatches", name)
    op.drop_table("command_batches")
    op.drop_table("device_last_status")
    for check in ("status", "battery_pct", "bucket_holds_ts"):
        op.drop_constraint(f"ck_device_heartbeats_{check}", "device_heartbeats")
    for name in (*REPORT_COLUMNS, "received_at"):
        op.drop_column("device_heartbeats", name)
    op.drop_index("ix_enrollment_tokens_issued_at", "enrollment_tokens")
    for check in ("scope", "status", "uses"):
        op.drop_constraint(f"ck_enrollment_tokens_{check}", "enrollment_tokens")
    op.drop_constraint("ck_devices_alias_length", "devices")
    op.drop_index("uq_devices_live_alias", "devices")
    for name in DEVICE_COLUMNS:
        op.drop_column("devices", name)


def devices() -> None:
    for name, type_ in DEVICE_COLUMNS.items():
        op.add_column("devices", sa.Column(name, type_))
    # Devices that were here before have used their token already.
    op.execute("UPDATE devices SET confirmed_at = created_at")
    op.create_unique_constraint("uq_devices_prior_token_id", "devices", ["prior_token_id"])
    op.create_check_constraint("alias_length", "devices", "char_length(alias) BETWEEN 1 AND 200")
    op.create_check_constraint("one_token_once_confirmed", "devices", "prior_token_id IS NULL OR confirmed_at IS NULL")
    op.create_index(
        "uq_devices_live_alias",
        "devices",
        ["alias"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def enrollment_tokens() -> None:
    op.create_check_constraint("scope", "enrollment_tokens", "scope IN ('register', 'apk_download')")
    op.create_check_constraint("status", "enrollment_tokens", "status IN ('active', 'exhausted', 'revoked')")
    op.create_check_constraint("uses", "enrollment_tokens", "uses_consumed BETWEEN 0 AND uses_allowed")
    op.create_index("ix_enrollment_tokens_issued_at", "enrollment_tokens", ["issued_at", "token_id"])


def heartbeats() -> None:
    op.add_column("device_heartbeats", sa.Column("received_at", INSTANT))
    op.execute("UPDATE device_heartbeats SET received_at = ts")
    op.alter_column("device_heartbeats", "received_at", nullable=False, server_default=NOW)
    for name, type_ in REPORT_COLUMNS.items():
        op.add_column("device_heartbeats", sa.Column(name, type_))
    op.create_check_constraint("status", "device_heartbeats", "status IN ('ok', 'warn', 'error')")
    op.create_check_constraint("battery_pct", "device_heartbeats", "battery_pct BETWEEN 0 AND 100")
    op.create_check_constraint("bucket_holds_ts", "device_heartbeats", "bucket <= ts")


def last_status() -> None:
    op.create_table(
        "device_last_status",
        sa.Column("device_id", sa.Text, nullable=False),
        sa.Column("last_ts", INSTANT, nullable=False),
        sa.Column("last_seen_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("status", sa.Text, nullable=False, server_default="ok"),
        sa.Column("ip", sa.Text),
        sa.Column("battery_pct", sa.Integer),
        sa.Column("plugged", sa.Boolean),
        sa.Column("temp_c", sa.Double),
        sa.Column("network_type", sa.Text),
        sa.Column("signal_dbm", sa.Integer),
        sa.Column("uptime_s", sa.BigInteger),
        sa.Column("ram_used_mb", sa.Integer),
        sa.Column("unity_pkg_version", sa.Text),
        sa.Column("unity_running", sa.Boolean),
        sa.Column("agent_version", sa.Text),
        *(sa.Column(name, type_) for name, type_ in REPORT_COLUMNS.items()),
        sa.PrimaryKeyConstraint("device_id", name="pk_device_last_status"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_last_status_device_id"),
        sa.CheckConstraint("status IN ('ok', 'warn', 'error')", name="status"),
        sa.CheckConstraint("battery_pct BETWEEN 0 AND 100", name="battery_pct"),
    )
    op.create_index("ix_device_last_status_last_seen_at", "device_last_status", ["last_seen_at"])
    op.create_index("ix_device_last_status_agent_version", "device_last_status", ["agent_version"])
    op.create_index(
        "ix_device_last_status_status", "device_last_status", ["status"], postgresql_where=sa.text("status <> 'ok'")
    )


def commands() -> None:
    op.create_table(
        "command_batches",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("payload_hash", sa.Text, nullable=False),
        sa.Column("selector", JSONB, nullable=False),
        sa.Column("device_count", sa.Integer, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("request_id", name="pk_command_batches"),
    )
    for column in (
        sa.Column("state", sa.Text, nullable=False, server_default="accepted"),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease_until", INSTANT),
        sa.Column("next_at", INSTANT),
        sa.Column("expires_at", INSTANT),
        sa.Column("fcm_expires_at", INSTANT),
        sa.Column("payload", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("secrets", JSONB),
        sa.Column("batch_id", sa.Text),
        sa.Column("created_by", sa.Text),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("audit", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
    ):
        op.add_column("fcm_dispatches", column)
    adopt_dispatches()
    op.alter_column("fcm_dispatches", "expires_at", nullable=False)
    op.create_foreign_key(
        "fk_fcm_dispatches_batch_id", "fcm_dispatches", "command_batches", ["batch_id"], ["request_id"]
    )
    dispatch_checks()
    dispatch_indexes()


def adopt_dispatches() -> None:
    """Rows of before: nobody knows what became of a pending one, so it is unknown and is never sent again."""
    op.execute("""
        UPDATE fcm_dispatches SET
            created_at = sent_at,
            expires_at = sent_at + interval '10 minutes',
            fcm_expires_at = sent_at + interval '28 days',
            state = CASE WHEN completed_at IS NOT NULL OR fcm_status IN ('success', 'sent', 'completed') THEN 'sent'
                         WHEN fcm_status = 'failed' THEN 'failed' ELSE 'unknown' END
    """)


def dispatch_checks() -> None:
    checks = {
        "state": "state IN ('accepted', 'sending', 'sent', 'failed', 'retry_wait', 'unknown', 'expired', 'cancelled')",
        "lease_while_sending": "(state = 'sending') = (lease_until IS NOT NULL)",
        "fence_while_sending": "state <> 'sending' OR fence > 0",
        "next_while_waiting": "(state = 'retry_wait') = (next_at IS NOT NULL)",
        "accepted_is_not_completed": "state <> 'accepted' OR completed_at IS NULL",
        "secrets_only_while_sendable": "secrets IS NULL OR secrets = '{}'::jsonb OR (completed_at IS NULL"
        " AND state IN ('accepted', 'sending', 'retry_wait', 'unknown'))",
        "batch_member": "(batch_id IS NULL) OR request_id = batch_id || ':' || device_id",
    }
    for name, condition in checks.items():
        op.create_check_constraint(name, "fcm_dispatches", condition)


def dispatch_indexes() -> None:
    op.create_index(
        "ix_fcm_dispatches_batch_id",
        "fcm_dispatches",
        ["batch_id", "state"],
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_index("ix_fcm_dispatches_created_at", "fcm_dispatches", ["created_at", "request_id"])
    op.create_index(
        "ix_fcm_dispatches_open",
        "fcm_dispatches",
        [sa.text("coalesce(next_at, lease_until, created_at)")],
        postgresql_where=sa.text("state IN ('accepted', 'retry_wait', 'sending')"),
    )
    op.create_index(
        "ix_fcm_dispatches_pending",
        "fcm_dispatches",
        ["device_id", "expires_at"],
        postgresql_where=sa.text("state IN ('accepted', 'retry_wait', 'unknown') AND completed_at IS NULL"),
    )


def downloads() -> None:
    op.add_column("apk_download_events", sa.Column("device_id", sa.Text))
    op.create_foreign_key("fk_apk_download_events_device_id", "apk_download_events", "devices", ["device_id"], ["id"])
    op.create_foreign_key(
        "fk_apk_download_events_token_id", "apk_download_events", "enrollment_tokens", ["token_id"], ["token_id"]
    )
    op.create_check_constraint("source", "apk_download_events", "source IN ('enrollment', 'manual', 'ci')")
