"""The Alembic environment: one run at a time, one transaction per revision, short locks, no session state.

`config.attributes["seconds"]` limits how long a run waits for another one and for locks (the migrate function sets it).
"""

import re
from contextlib import nullcontext

import psycopg2
from alembic import context
from alembic.migration import MigrationContext
from alembic.runtime.migration import MigrationInfo
from nexmdm.heartbeats import partitions
from nexmdm.runtime import database, settings
from nexmdm.schema import grants
from nexmdm.schema.models import Base
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from migrations.address import url
from migrations.guard import Guard
from migrations.retry import until_locks_are_free

# A writer that is queued behind a revision waits at most 2 s, for the revision's lock wait and the rest of that
# statement. If both timeouts were equal, the statement timeout would end it first, which is an error that is not
# retried.
TIMEOUTS = "SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '2s'"


def is_ours(obj: object, name: str | None, type_: str, reflected: bool, compare_to: object) -> bool:
    """Partitions belong to their parent, and the old server's other tables are left as they are."""
    return not (type_ == "table" and reflected and compare_to is None)


def run() -> None:
    if context.is_offline_mode():
        raise SystemExit(
            "--sql is not supported: the revisions read the catalog. Use `make adopt DRY_RUN=1` to only inspect."
        )
    engine = create_engine(url(), poolclass=NullPool, hide_parameters=True)
    try:
        _run(engine)
    except OperationalError as error:
        refused = isinstance(error.orig, psycopg2.Error) and error.orig.pgcode is None
        if context.config.attributes or not refused:
            raise
        # Run from a terminal, and the database cannot be reached.
        raise SystemExit(f"migrate: the database of DATABASE_URL does not respond: {str(error.orig).strip()}") from None


def _run(engine: Engine) -> None:
    seconds = context.config.attributes.get("seconds", 900)
    with Guard(engine, seconds) if _changes() else nullcontext() as guard:
        event.listen(engine, "begin", _set_timeouts)
        done: list[str] = []
        until_locks_are_free(lambda: _migrate(engine, guard, done), seconds, repeatable=lambda: _absolute() or not done)
    if guard and _at_head(engine):
        with engine.begin() as connection:
            grants.ensure(connection)
        # Without partitions every heartbeat would go to the default one until the first cleanup.
        partitions.ensure_partitions(database.Database(settings.load().dsn), settings.load())


def _migrate(engine: Engine, guard: Guard | None, done: list[str]) -> None:
    def applied(ctx: object, step: MigrationInfo, heads: object, run_args: object) -> None:
        # Checks that this is still the only run, inside the revision's transaction, which rolls back if it is not.
        if guard:
            guard.check()
        done.append(str(step))

    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_object=is_ours,
            transaction_per_migration=True,
            compare_type=True,
            compare_server_default=True,
            on_version_apply=applied,
        )
        with context.begin_transaction():
            context.run_migrations()


def _set_timeouts(connection: Connection) -> None:
    """Set timeouts only for the transaction: behind a pooler, the next one may belong to another client."""
    connection.exec_driver_sql(TIMEOUTS)


def _at_head(engine: Engine) -> bool:
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current is not None and current == context.script.get_current_head()


def _changes() -> bool:
    """Reading commands (current, check, revision) need not be alone. Without a command line it is the function."""
    options = context.config.cmd_opts
    return options is None or options.cmd[0].__name__ in ("upgrade", "downgrade", "stamp")


def _absolute() -> bool:
    """`+2` means something else once a step of it was committed."""
    return not re.search(r"[+-]\d+$", str(getattr(context.config.cmd_opts, "revision", "")))


run()
