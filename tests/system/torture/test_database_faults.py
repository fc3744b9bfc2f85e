"""The database fails in every known way while a fleet reports through the gateway.

For each fault: no acknowledged heartbeat is missing, there is no 401, each environment returns at most one 503 that the
fault itself does not explain, and afterwards the same processes serve all devices again.
"""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import pytest

from tests.local.processes import eventually
from tests.support.claims import SCALE, Claim
from tests.system.torture.scene import HOLDS, ROLE, Fault, Scene, running_scene, survive

OTHERS = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{ROLE}'"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with running_scene() as scene:
        yield scene
        scene.load.stop()
        assert scene.missing() == set()


# --- the faults: each begins with its block and ends with it


@contextmanager
def terminated(scene: Scene) -> Iterator[None]:
    scene.sql(OTHERS)
    yield


@contextmanager
def restarted(scene: Scene) -> Iterator[None]:
    """Restart without a shutdown, so that the server recovers from its log."""
    scene.pg("pg_ctl", "restart", "-m", "immediate", "-w", "-D", scene.data, "-l", scene.data / "log")
    yield


@contextmanager
def read_only(scene: Scene) -> Iterator[None]:
    """Connections survive a failover and end up on a server that refuses writes (25006), until it ends."""
    scene.sql(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on", OTHERS)
    try:
        yield
    finally:
        scene.sql(f"ALTER ROLE {ROLE} RESET default_transaction_read_only")


@contextmanager
def connection_limit(scene: Scene) -> Iterator[None]:
    scene.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0", OTHERS)
    try:
        yield
    finally:
        scene.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


@contextmanager
def disk_full(scene: Scene) -> Iterator[None]:
    scene.sql(f"ALTER ROLE {ROLE} SET nexmdm.disk_full = on", OTHERS)
    try:
        yield
    finally:
        scene.sql(f"ALTER ROLE {ROLE} RESET nexmdm.disk_full", OTHERS)


@contextmanager
def statement_timeout(scene: Scene) -> Iterator[None]:
    """Another session holds a lock for longer than a statement may take."""
    scene.sql(f"ALTER ROLE {ROLE} SET statement_timeout = '100ms'", OTHERS)
    try:
        with contextlib.closing(psycopg2.connect(scene.admin)) as holder, holder.cursor() as cursor:
            cursor.execute("LOCK TABLE device_last_status IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        scene.sql(f"ALTER ROLE {ROLE} RESET statement_timeout", OTHERS)


@contextmanager
def answer_lost(scene: Scene) -> Iterator[None]:
    """The statement is committed, and the connection breaks before its response arrives."""
    before = scene.stack.line.connections
    scene.stack.line.lose_answers()
    eventually(lambda: scene.stack.line.connections > before)
    yield


@contextmanager
def slow(scene: Scene) -> Iterator[None]:
    """Responses arrive slowly: pieces of 64 bytes, 2 ms each."""
    scene.stack.line.delay, scene.stack.line.piece = 0.002, 64
    try:
        yield
    finally:
        scene.stack.line.delay, scene.stack.line.piece = 0.0, 65536


@contextmanager
def half_open(scene: Scene) -> Iterator[None]:
    """Connections stay open without a response; new connections work."""
    scene.stack.line.fall_silent()
    yield


@contextmanager
def silent(scene: Scene) -> Iterator[None]:
    """No connection gets a response, not even a new one."""
    scene.stack.line.fall_silent(new=True)
    try:
        yield
    finally:
        scene.stack.line.speak_again()


MOMENTS: dict[str, Fault] = {
    "all backends terminated": terminated,
    "the answer of a commit lost": answer_lost,
    "half-open connections": half_open,
}
OUTAGES: dict[str, Fault] = {
    "read-only after a failover, and back": read_only,
    "connection limit reached": connection_limit,
    "disk full (53100)": disk_full,
    "statement timeout": statement_timeout,
}


@pytest.mark.parametrize("name", MOMENTS)
def test_brief_fault_is_not_visible_to_devices(scene: Scene, claim: Claim, name: str):
    answered = sum(survive(scene, MOMENTS[name], {200}) for _ in range(SCALE))
    claim(HOLDS, f"{name} ({answered} requests met it)", SCALE)


@pytest.mark.parametrize("name", OUTAGES)
def test_outage_returns_503_and_loses_nothing(scene: Scene, claim: Claim, name: str):
    answered = sum(survive(scene, OUTAGES[name], {503}) for _ in range(SCALE))
    claim(HOLDS, f"{name} ({answered} requests met it)", SCALE)


def test_immediate_restart_loses_nothing(scene: Scene, claim: Claim):
    """An outage that is over before many requests can meet it."""
    answered = sum(survive(scene, restarted, {200, 503}) for _ in range(SCALE))
    claim(HOLDS, f"immediate restart ({answered} requests met it)", SCALE)


def test_slow_network_only_takes_longer(scene: Scene, claim: Claim):
    begun = time.monotonic()
    answered = sum(survive(scene, slow, {200}) for _ in range(SCALE))
    assert {answer.status for answer in scene.load.record.told_since(begun)} == {200}
    claim(HOLDS, f"slow network ({answered} requests met it)", SCALE)


def test_silent_database_returns_503_before_the_function_times_out(scene: Scene, claim: Claim):
    """If the function timed out instead, Lambda would kill the environment and the caller would get a bare 500."""
    answered = sum(survive(scene, silent, {503}, seen=2) for _ in range(max(1, SCALE // 5)))
    claim(HOLDS, f"a silent database ({answered} requests met it)", max(1, SCALE // 5))
