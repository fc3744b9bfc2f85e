"""The database logins of the functions, as a deployed stack has them."""

from contextlib import closing

import psycopg2
from nexmdm.schema.grants import OWNER, ROLES

_MAKE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} LOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another worker was first
END $$
"""


def make_roles(server: str) -> None:
    with closing(psycopg2.connect(server)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for role in (OWNER, *ROLES):
            cursor.execute(_MAKE.format(role=role))
