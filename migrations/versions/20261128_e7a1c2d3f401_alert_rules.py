"""Alert rules instead of fixed conditions; mutes; the columns of alerts for both

Revision ID: e7a1c2d3f401
Revises: d1e5a0f2b307
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from migrations import grants

revision = "e7a1c2d3f401"
down_revision = "d1e5a0f2b307"
branch_labels = None
depends_on = None

INSTANT = sa.TIMESTAMP(timezone=True)
CONDITIONS = (
    "condition IN ('silent', 'low_battery', 'high_temperature', 'app_down', 'app_background', 'queue_growing',"
    " 'agent_outdated', 'duplicate_identity', 'clock_wrong')"
)


def upgrade() -> None:
    op.create_table(
        "alert_rules",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("condition", sa.Text, nullable=False),
        sa.Column("filter", JSONB),
        sa.Column("threshold", sa.Double),
        sa.Column("for_seconds", sa.Integer, nullable=False, server_default="0"),
        sa.Column("severity", sa.Text, nullable=False, server_default="warning"),
        sa.Column("routes", ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("priority", sa.Integer, nullable=False, server_default="100"),
        sa.Column("quiet_hours", JSONB),
        sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("name", name="pk_alert_rules"),
        sa.CheckConstraint(CONDITIONS, name="condition"),
        sa.CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
        sa.CheckConstraint("for_seconds BETWEEN 0 AND 604800", name="for_seconds"),
    )
    # The conditions that were evaluated before rules existed. Without a threshold, the setting of the watch applies.
    for condition in ("silent", "low_battery", "app_down", "queue_growing", "agent_outdated"):
        op.execute(f"INSERT INTO alert_rules (name, condition) VALUES ('{condition}', '{condition}')")
    op.create_table(
        "alert_mutes",
        sa.Column("mute_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("filter", JSONB, nullable=False),
        sa.Column("condition", sa.Text),
        sa.Column("until", INSTANT, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("mute_id", name="pk_alert_mutes"),
        sa.CheckConstraint(f"condition IS NULL OR {CONDITIONS}", name="condition"),
    )
    op.drop_constraint("ck_device_alerts_condition", "device_alerts")
    op.execute("UPDATE device_alerts SET condition = 'app_down' WHERE condition = 'unity_down'")
    op.create_check_constraint("condition", "device_alerts", CONDITIONS)
    op.add_column("device_alerts", sa.Column("rule", sa.Text))
    op.add_column("device_alerts", sa.Column("severity", sa.Text, nullable=False, server_default="warning"))
    # Null for a pending alert: the condition has not lasted for the rule's for_seconds yet.
    op.add_column("device_alerts", sa.Column("opened_at", INSTANT))
    op.execute("UPDATE device_alerts SET opened_at = since")
    op.alter_column("device_alerts", "opened_at", server_default=sa.text("clock_timestamp()"))
    op.add_column("device_alerts", sa.Column("muted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("device_alerts", sa.Column("acked_at", INSTANT))
    op.add_column("device_alerts", sa.Column("acked_by", sa.Text))
    op.add_column("device_alerts", sa.Column("ack_note", sa.Text))
    op.create_check_constraint("severity", "device_alerts", "severity IN ('info', 'warning', 'critical')")
    op.create_check_constraint("acked_by", "device_alerts", "(acked_at IS NULL) = (acked_by IS NULL)")
    grants.grant(op.get_bind(), "alert_rules", nexmdm_app="SELECT, INSERT, UPDATE, DELETE")
    grants.grant(op.get_bind(), "alert_mutes", nexmdm_app="SELECT, INSERT, DELETE")
    grants.grant(op.get_bind(), "device_alerts", nexmdm_app="DELETE")


def downgrade() -> None:
    op.execute("DELETE FROM device_alerts WHERE opened_at IS NULL")
    for name in ("acked_by", "severity", "condition"):
        op.drop_constraint(f"ck_device_alerts_{name}", "device_alerts")
    for column in ("ack_note", "acked_by", "acked_at", "muted", "opened_at", "severity", "rule"):
        op.drop_column("device_alerts", column)
    op.execute("UPDATE device_alerts SET condition = 'unity_down' WHERE condition = 'app_down'")
    op.execute(
        "DELETE FROM device_alerts WHERE condition IN"
        " ('high_temperature', 'app_background', 'duplicate_identity', 'clock_wrong')"
    )
    op.create_check_constraint(
        "condition",
        "device_alerts",
        "condition IN ('silent', 'low_battery', 'unity_down', 'queue_growing', 'agent_outdated')",
    )
    op.drop_table("alert_mutes")
    op.drop_table("alert_rules")
