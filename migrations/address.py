"""The database to migrate: DATABASE_URL, or DATABASE_HOST in Lambda, or else the local embedded server."""

import os

from nexmdm.runtime import settings


def url() -> str:
    """As SQLAlchemy takes it. The embedded server lives until this process ends, and child processes find it too."""
    if not os.environ.get("DATABASE_URL") and not os.environ.get("DATABASE_HOST"):
        from local.postgres import embedded

        os.environ["DATABASE_URL"] = embedded.url()
        settings.load.cache_clear()
    return settings.load().sqlalchemy_url
