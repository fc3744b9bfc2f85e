"""A real failover under load: connections move to a hot standby, which refuses writes until it is promoted.

The primary commits only what the standby has too, because Aurora's instances share their storage.
"""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from tests.local.processes import eventually
from tests.support.claims import Claim
from tests.support.postgres import run_sql
from tests.system.torture.scene import HOLDS, Scene, function_url, running_scene, survive

pytestmark = pytest.mark.long


@pytest.fixture
def scene() -> Iterator[Scene]:
    with running_scene() as scene:
        yield scene


@contextmanager
def standby_of(scene: Scene) -> Iterator[Path]:
    """The data folder of a standby that has everything that was committed, at each commit."""
    data = scene.data.with_name("standby")
    data.mkdir(mode=0o700)
    shutil.chown(data, scene.data.owner(), scene.data.group())
    scene.pg("pg_basebackup", "-D", data, "-R", "-c", "fast", "-h", parse_dsn(scene.admin)["host"], "-U", "postgres")
    (data / ".s.PGSQL.5432.lock").unlink()  # the primary's socket is in its data folder and was copied with it
    scene.pg("pg_ctl", "start", "-w", "-D", data, "-o", f"-h '' -k {data}", "-l", data / "log")
    try:
        run_sql(scene.admin, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        eventually(lambda: synchronous(scene.admin))
        yield data
    finally:
        scene.pg("pg_ctl", "stop", "-m", "immediate", "-D", data)


def synchronous(admin: str) -> bool:
    with contextlib.closing(psycopg2.connect(admin)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
        return cursor.fetchone() == (1,)


def test_standby_takes_over_without_losing_a_heartbeat(scene: Scene, claim: Claim):
    with standby_of(scene) as data:
        there = scene.admin.replace(quote(str(scene.data), safe=""), quote(str(data), safe=""))

        @contextmanager
        def failover(scene: Scene) -> Iterator[None]:
            scene.stack.line.lead_to(function_url(there))
            scene.stack.line.cut()
            yield
            scene.pg("pg_ctl", "promote", "-w", "-D", data)
            scene.admin = there

        answered = survive(scene, failover, {503})
        scene.load.stop()
        assert scene.missing() == set()
    claim(HOLDS, f"failover to a standby, promoted under load ({answered} requests met it)", 1)
