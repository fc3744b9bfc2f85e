"""One schema: a database of the old server becomes one of this project's

Revision ID: b5d0c2f4a917
Revises: c73b10a6beaa

Reads the catalog, not the stamp, and does nothing where nothing differs. Runs with the old server stopped.
"""

from alembic import op

from migrations.adoption import plan

revision = "b5d0c2f4a917"
down_revision = "c73b10a6beaa"
branch_labels = None
depends_on = None


def upgrade() -> None:
    db = op.get_bind()
    steps = plan.plan(db)
    if steps:
        # Nobody waits for these tables: the server that used them has been stopped.
        op.execute("SET LOCAL statement_timeout = 0")
        plan.run(db, steps)


def downgrade() -> None:
    """The shape is that of c73b10a6beaa already. What was kept in old_server_values stays there."""
