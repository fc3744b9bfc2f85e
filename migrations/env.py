"""How Alembic reaches the database: DATABASE_URL, or the embedded server of this machine when it is unset."""

import os

from alembic import context
from nexmdm.models import Base
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool


def url() -> str:
    from nexmdm import settings

    if not os.environ.get("DATABASE_URL"):
        from local import postgres

        os.environ["DATABASE_URL"] = postgres.url()
        settings.load.cache_clear()
    return settings.load().sqlalchemy_url


def is_ours(obj: object, name: str | None, type_: str, reflected: bool, compare_to: object) -> bool:
    """Partitions belong to their parent, and the old server's other tables are left as they are."""
    return not (type_ == "table" and reflected and compare_to is None)


def run() -> None:
    engine = create_engine(url(), poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_object=is_ours,
            transaction_per_migration=True,
            compare_type=True,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
