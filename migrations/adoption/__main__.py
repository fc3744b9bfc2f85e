"""`make adopt`: take a database of the old server over. `--dry-run` (`make adopt DRY_RUN=1`) only looks.

Stop the old server first; looking does not need that. The report is made in a read-only transaction.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from nexmdm.runtime import settings
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from migrations.address import url
from migrations.adoption import catalog, plan
from migrations.adoption.steps import Step

STAMPS = ("7ac6ecbe4e31", "a43a2b52588a", "c73b10a6beaa")
ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m migrations.adoption", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and how many rows it touches")
    dry_run = parser.parse_args().dry_run
    try:
        engine = create_engine(url(), poolclass=NullPool, hide_parameters=True)
        with engine.connect() as db:
            db.exec_driver_sql("SET TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ")
            adoptable = report(db)
    except (settings.SettingsError, OperationalError) as error:
        sys.exit(f"adopt: {getattr(error, 'orig', error)}")
    if dry_run:
        print("\nNothing was changed." if adoptable else "")
    elif adoptable:
        done = subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=os.environ)
        print("\nAdopted." if done.returncode == 0 else "\nNot adopted; nothing of the failed revision was kept.")
        sys.exit(done.returncode)
    sys.exit(0 if adoptable else 1)


def report(db: Connection) -> bool:
    """Print what `upgrade head` would do; False when it cannot."""
    stamp = _stamp(db)
    if stamp is None and catalog.exists(db, "devices"):
        print("The database has tables but no revision. When the old server made it, say so first:")
        print("  alembic stamp a43a2b52588a")
        return False
    if stamp not in (None, *STAMPS):
        print(f"The database is at {stamp}, past the adoption. `alembic upgrade head` does the rest.")
        return True
    print(f"The database is at {stamp or 'no revision'}. Steps and the rows that they touch:")
    steps = plan.plan(db) if stamp else []
    for step in [*steps, *(_later(db) if steps else [])]:
        count = plan.counted(db, step)
        print(f"  {'' if count is None else count:>10}  {step.what}")
    if not steps:
        print("  none: nothing of an old server is here")
    return True


def _stamp(db: Connection) -> str | None:
    if not catalog.exists(db, "alembic_version"):
        return None
    return db.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _later(db: Connection) -> list[Step]:
    """What revision e8a41f63d7c2 makes of the rows."""
    if not catalog.exists(db, "fcm_dispatches"):
        return []
    completed = "completed_at IS NULL AND " if "completed_at" in catalog.columns(db, "fcm_dispatches") else ""
    known = "('success', 'sent', 'completed', 'failed')"
    pending = f"SELECT count(*) FROM fcm_dispatches WHERE {completed}fcm_status NOT IN {known}"
    return [
        Step("fcm_dispatches: their outcome is not known; they become unknown and are never sent again", None, pending),
        Step("devices: keep their tokens", None, "SELECT count(*) FROM devices WHERE token_id IS NOT NULL"),
        Step(
            "device_last_status: filled from the old table, devices.last_status or the newest heartbeat",
            None,
            "SELECT count(*) FROM devices",
        ),
    ]


if __name__ == "__main__":
    main()
