"""The two roles that functions log in as, made by RDS's administrator at deploy. Safe to repeat.

nexmdm_owner owns the tables: migrations, and the partitions that cleanup makes and drops. nexmdm_app reads and writes
rows.
Both log in by IAM (`rds_iam`), so neither has a password.
"""

import json
import time

from nexmdm.runtime import secrets
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import Unavailable
from nexmdm.runtime.settings import Settings

OWNER = "nexmdm_owner"
APP = "nexmdm_app"


def ensure(config: Settings, wait_seconds: float = 60) -> None:
    """Make what is missing, as the administrator of DATABASE_ADMIN_SECRET and then as the owner.

    Args:
        wait_seconds: how long to wait for a database that resumes from a pause.
    """
    administrator = json.loads(secrets.fetch(config.database_admin_secret))
    admin = Database(config.dsn_of(administrator["username"], administrator["password"]))
    owner = Database(lambda: config.dsn)
    try:
        _wait(admin, wait_seconds)
        with admin.transaction():
            for role in (OWNER, APP):
                if not admin.execute(_EXISTS, {"role": role}):
                    admin.execute(f"CREATE ROLE {role} LOGIN")
                admin.execute(f"GRANT rds_iam TO {role}")
            admin.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER}")
            admin.execute(f"GRANT USAGE ON SCHEMA public TO {APP}")
        # What the owner makes from now on, the other may use.
        for right in ("SELECT, INSERT, UPDATE, DELETE ON TABLES", "USAGE ON SEQUENCES"):
            owner.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {right} TO {APP}", repeatable=True)
    finally:
        admin.close()
        owner.close()


def _wait(db: Database, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            db.execute("SELECT 1")
            return
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


_EXISTS = "SELECT rolname FROM pg_roles WHERE rolname = %(role)s"
