"""Lets functions log in as in Lambda, each with the rights of its own role, if the server has these roles.

This applies to the embedded server, whose socket requires no password. On another server, over TCP, all use its one
user.
"""

import functools
import re
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

LOGINS = ("nexmdm_owner", "nexmdm_app", "nexmdm_device")
# The owner is the user that ran the migrations.
REPLACED = ("nexmdm_app", "nexmdm_device")
_MAKE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} LOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another process was first
END $$
"""


def make(url: str) -> None:
    """Create the logins on the server; migrations grant their rights."""
    import psycopg2

    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for role in LOGINS:
            cursor.execute(_MAKE.format(role=role))


def url_of(url: str, login: str) -> str:
    """The URL with this login instead of its user, if possible."""
    over_socket = parse_qs(urlsplit(url).query).get("host", [""])[0].startswith("/")
    if login not in REPLACED or not over_socket or login not in _present(url):
        return url
    return re.sub(r"//[^/@]*@", f"//{login}@", url, count=1)


@functools.lru_cache(maxsize=8)
def _present(url: str) -> tuple[str, ...]:
    import psycopg2  # imported here to keep the import of this package cheap

    try:
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(REPLACED),))
            return tuple(name for (name,) in cursor.fetchall())
    except psycopg2.OperationalError:
        return ()
