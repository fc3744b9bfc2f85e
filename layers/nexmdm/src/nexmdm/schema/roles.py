"""The database roles that functions log in as, created during the deploy before the migration. Safe to repeat.

nexmdm_owner owns the tables; migrations use it, and cleanup to create and drop partitions. nexmdm_app has the rights
that operator requests need, nexmdm_device those that device requests need; migrations grant them. All log in through
IAM (`rds_iam`), without a password.

Since PostgreSQL 16 the creator of a role becomes a member of it. So once nexmdm_owner is a member of `rds_iam`, its
creator is one too, and RDS accepts no password from such a member: from then on the administrator's password no longer
works. The administrator therefore creates only the owner, the owner creates the others, and the owner's login is tried
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
    """Create missing roles.

    Args:
        wait_seconds: how long to try both logins. A paused database resumes in 15 s, or more after a day, and an IAM
        policy takes some seconds to become effective.

    Raises:
        Unavailable: neither login works; the text has both reasons.
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
    """Log in as the owner; if that fails, have the administrator create the owner, and try again."""
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
    """Create the owner; return None, or the reason why the administrator could not log in."""
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
    """The server that was contacted and the message of libpq or the socket, in one line."""
    return " ".join(str(error.__cause__ or error).split())


_EXISTS = "SELECT rolname FROM pg_roles WHERE rolname = %(role)s"
