"""`alembic upgrade head`, except for a database that is newer than this code."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from nexmdm.runtime import settings
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool


def upgrade(migrations: Path, seconds: float) -> str:
    """Upgrade the schema to head and return its revision.

    Args:
        seconds: how long to wait for another run, and for locks.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "os")
    config.attributes["seconds"] = seconds
    current = _current()
    if current is not None and not _known(config, current):
        return current  # a later release has migrated it; its schema works with this code too
    command.upgrade(config, "head")
    return str(ScriptDirectory.from_config(config).get_current_head())


def _known(config: Config, revision: str) -> bool:
    return any(script.revision == revision for script in ScriptDirectory.from_config(config).walk_revisions())


def _current() -> str | None:
    engine = create_engine(settings.load().sqlalchemy_url, poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()
