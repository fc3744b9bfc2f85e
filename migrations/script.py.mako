"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}

Fits the code that is still running (docs/migrations.md): add before use; drop only what the release before this one no
longer reads; a new column is nullable or has a constant default; a constraint is NOT VALID first and validated in the
next revision; an index on a table in use is a revision of its own (migrations.concurrently).
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
