"""The database roles that functions log in as, made in the deploy before the schema migrates. Safe to repeat.

nexmdm_owner owns the tables: migrations, and the partitions that cleanup makes and drops. nexmdm_app may do what
operators ask for, nexmdm_device what devices ask for; migrations grant it to them. All log in by IAM (`rds_iam`),
without a password.

Since PostgreSQL 16 the maker of a role becomes a member of it. So once nexmdm_owner is a member of `rds_iam`, its
maker is one too, and RDS takes no password of such a member: the administrator's password is good until then and never
again. The administrator therefore makes only the owner, the owner makes the others, and the owner's own login is tried
first.
"""

import time

from nexmdm.runtime import secrets
from nexmdm.runtime.database import Database, Executor
from nexmdm.runtime.errors import Unavailable
from nexmdm.runtime.settings import Settings, SettingsError

OWNER = "nexmdm_owner"
APP = "nexmdm_app"
DEVICE = "nexmdm_device"
LOGINS = (APP, DEVICE)


def ensure(config: Settings, wait_seconds: float) -> None:
    """Make the roles that are missing.

    Args:
        wait_seconds: how long to try both logins: a paused database resumes in 15 s, or more after a day, and a policy
            of IAM takes some seconds to count.

    Raises:
        Unavailable: neither login works; its text has the reason of each.
    """
    owner = Database(lambda: config.dsn)
    try:
        _log_in(owner, config, wait_seconds)
        for role in LOGINS:
            if not owner.execute(_EXISTS, {"role": role}, repeatable=True):
                owner.execute(f"CREATE ROLE {role} LOGIN")
            owner.execute(f"GRANT rds_iam TO {role}")
            owner.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    finally:
        owner.close()


def _log_in(owner: Database, config: Settings, seconds: float) -> None:
    """Log in as the owner; where that fails, have the administrator make it, and try again."""
    deadline = time.monotonic() + seconds
    while (by_iam := _failure(owner)) is not None:
        by_password = _as_administrator(config)
        if by_password is None and (by_iam := _failure(owner)) is None:
            return
        if time.monotonic() > deadline:
            told = f"by password: {by_password}" if by_password else "has made it"
            raise Unavailable(f"No login works. {OWNER} by IAM: {by_iam}. The administrator {told}")
        time.sleep(1)


def _as_administrator(config: Settings) -> str | None:
    """Make the owner. None, or the reason why the administrator could not log in."""
    try:
        user, password = secrets.administrator(config)
    except (Unavailable, SettingsError) as error:
        return _reason(error)
    admin = Database(config.dsn_of(user, password))
    try:
        if (failure := _failure(admin)) is None:
            with admin.transaction() as transaction:
                _make_owner(transaction)
        return failure
    finally:
        admin.close()


def _make_owner(admin: Executor) -> None:
    made = admin.execute(_EXISTS, {"role": OWNER})
    admin.execute(f"{'ALTER' if made else 'CREATE'} ROLE {OWNER} LOGIN CREATEROLE")
    admin.execute(f"GRANT rds_iam TO {OWNER} WITH ADMIN OPTION")
    admin.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER} WITH GRANT OPTION")


def _failure(db: Database) -> str | None:
    try:
        db.execute("SELECT 1")
    except Unavailable as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    """What was asked and what it said: libpq's words or the socket's, in one line."""
    return " ".join(str(error.__cause__ or error).split())


_EXISTS = "SELECT rolname FROM pg_roles WHERE rolname = %(role)s"
