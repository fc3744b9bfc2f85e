"""Staged rollouts: the plan and its current stage

Revision ID: 15b11d000005
Revises: 15b11d000004

plan: {stages, window, install, public_url, made_by}. plan_stage counts from 0; plan_stage_at is when that stage began.
A plan that ended keeps both, and records who or what ended it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "15b11d000005"
down_revision = "15b11d000004"
branch_labels = None
depends_on = None

INSTANT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.add_column("apk_versions", sa.Column("plan", JSONB))
    op.add_column("apk_versions", sa.Column("plan_stage", sa.Integer))
    op.add_column("apk_versions", sa.Column("plan_stage_at", INSTANT))
    op.add_column("apk_versions", sa.Column("plan_ended_at", INSTANT))
    op.add_column("apk_versions", sa.Column("plan_end", sa.Text))
    op.create_check_constraint(
        op.f("ck_apk_versions_plan_whole"), "apk_versions", "num_nulls(plan, plan_stage, plan_stage_at) IN (0, 3)"
    )
    op.create_check_constraint(
        op.f("ck_apk_versions_plan_end_says_why"), "apk_versions", "(plan_ended_at IS NULL) = (plan_end IS NULL)"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_apk_versions_plan_end_says_why"), "apk_versions")
    op.drop_constraint(op.f("ck_apk_versions_plan_whole"), "apk_versions")
    for name in ("plan_end", "plan_ended_at", "plan_stage_at", "plan_stage", "plan"):
        op.drop_column("apk_versions", name)
