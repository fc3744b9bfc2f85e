"""Baseline: devices, enrolment tokens, builds, installations, and the three tables of the persistence layer

Revision ID: 7ac6ecbe4e31
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "7ac6ecbe4e31"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.TIMESTAMP(timezone=True)
NOW = sa.func.now()


def upgrade() -> None:
    devices()
    enrollment_tokens()
    apk_versions()
    apk_installations()
    fcm_dispatches()
    device_heartbeats()
    apk_download_events()


def downgrade() -> None:
    for table in (
        "apk_download_events",
        "device_heartbeats",
        "fcm_dispatches",
        "apk_installations",
        "apk_versions",
        "enrollment_tokens",
        "devices",
    ):
        # The old server's other tables refer to these: CASCADE takes their foreign keys, never their rows.
        op.execute(f"DROP TABLE {table} CASCADE")


def devices() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("alias", sa.Text(collation="C"), nullable=False),
        sa.Column("token_id", sa.Text),
        sa.Column("fcm_token", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("manufacturer", sa.Text),
        sa.Column("android_version", sa.Text),
        sa.Column("sdk_int", sa.Integer),
        sa.Column("build_id", sa.Text),
        sa.Column("is_device_owner", sa.Boolean),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_devices"),
        sa.UniqueConstraint("token_id", name="uq_devices_token_id"),
    )


def enrollment_tokens() -> None:
    op.create_table(
        "enrollment_tokens",
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("token_hash", sa.Text, nullable=False),
        sa.Column("issued_by", sa.Text),
        sa.Column("issued_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("uses_allowed", sa.Integer, nullable=False, server_default="1"),
        sa.Column("uses_consumed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("note", sa.Text),
        sa.Column("status", sa.Text, nullable=False, server_default="active"),
        sa.Column("device_id", sa.Text),
        sa.Column("used_at", INSTANT),
        sa.PrimaryKeyConstraint("token_id", name="pk_enrollment_tokens"),
    )


def apk_versions() -> None:
    op.create_table(
        "apk_versions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("version_name", sa.Text, nullable=False),
        sa.Column("version_code", sa.Integer, nullable=False),
        sa.Column("file_path", sa.Text, nullable=False),
        sa.Column("file_size", sa.BigInteger, nullable=False),
        sa.Column("uploaded_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("uploaded_by", sa.Text),
        sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.PrimaryKeyConstraint("id", name="pk_apk_versions"),
    )


def apk_installations() -> None:
    op.create_table(
        "apk_installations",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("device_id", sa.Text, nullable=False),
        sa.Column("apk_version_id", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("initiated_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("completed_at", INSTANT),
        sa.Column("download_progress", sa.Integer),
        sa.Column("error_message", sa.Text),
        sa.Column("initiated_by", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_apk_installations"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_apk_installations_device_id"),
        sa.ForeignKeyConstraint(["apk_version_id"], ["apk_versions.id"], name="fk_apk_installations_apk_version_id"),
    )
    op.create_index("idx_installation_status", "apk_installations", ["device_id", "status"])
    op.create_index("idx_installation_time", "apk_installations", ["initiated_at"])
    op.create_index("idx_installation_version_status", "apk_installations", ["apk_version_id", "status"])


def fcm_dispatches() -> None:
    op.create_table(
        "fcm_dispatches",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("device_id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("payload_hash", sa.Text),
        sa.Column("sent_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("latency_ms", sa.Integer),
        sa.Column("fcm_message_id", sa.Text),
        sa.Column("http_code", sa.Integer),
        sa.Column("fcm_status", sa.Text, nullable=False, server_default="pending"),
        sa.Column("error_msg", sa.Text),
        sa.Column("response_json", sa.Text),
        sa.Column("retries", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("request_id", name="pk_fcm_dispatches"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_fcm_dispatches_device_id"),
    )
    op.create_index("idx_fcm_device_sent", "fcm_dispatches", ["device_id", "sent_at"])
    op.create_index("idx_fcm_action_sent", "fcm_dispatches", ["action", "sent_at"])
    op.create_index("ix_fcm_dispatches_sent_at", "fcm_dispatches", ["sent_at"])


def device_heartbeats() -> None:
    op.create_table(
        "device_heartbeats",
        sa.Column("hb_id", sa.BigInteger, nullable=False, autoincrement=True),
        sa.Column("bucket", INSTANT, nullable=False),
        sa.Column("device_id", sa.Text, nullable=False),
        sa.Column("ts", INSTANT, nullable=False, server_default=NOW),
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
        sa.PrimaryKeyConstraint("hb_id", "bucket", name="pk_device_heartbeats"),
        sa.UniqueConstraint("device_id", "bucket", name="uq_device_heartbeats_device_id_bucket"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_heartbeats_device_id"),
        postgresql_partition_by="RANGE (bucket)",
    )
    # Catches what no partition covers, so that a heartbeat is stored even when nothing made partitions for a week.
    op.execute("CREATE TABLE device_heartbeats_default PARTITION OF device_heartbeats DEFAULT")


def apk_download_events() -> None:
    op.create_table(
        "apk_download_events",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=True),
        sa.Column("build_id", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text),
        sa.Column("admin_user", sa.Text),
        sa.Column("ip", sa.Text),
        sa.Column("ts", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_apk_download_events"),
        sa.ForeignKeyConstraint(["build_id"], ["apk_versions.id"], name="fk_apk_download_events_build_id"),
    )
    op.create_index("idx_apk_download_build_ts", "apk_download_events", ["build_id", "ts"])
    op.create_index("idx_apk_download_token_ts", "apk_download_events", ["token_id", "ts"])
    op.create_index("ix_apk_download_events_ts", "apk_download_events", ["ts"])
