"""The embedded server runs as long as a process uses it, however its users end."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg2
import pytest

from local.postgres import embedded
from tests.local.processes import eventually

ANOTHER_USER = textwrap.dedent("""
    import pathlib, sys, time
    from local.postgres import embedded
    with embedded.start(pathlib.Path(sys.argv[1])) as url:
        print(url, flush=True)
        sys.stdin.readline()
""")


def servers(data: Path) -> list[psutil.Process]:
    """The postmaster and the keeper process of a data folder, both of which name it in their command lines."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if str(data) in words and process.info["status"] != psutil.STATUS_ZOMBIE and ANOTHER_USER not in words:
            found.append(process)
    return found


@pytest.fixture(scope="module")
def folder_of_all():
    with tempfile.TemporaryDirectory(prefix="nexmdm-test-") as folder:
        yield Path(folder)


@pytest.fixture
def data(folder_of_all):
    data = folder_of_all / "postgres"
    yield data
    embedded.stop(data)
    assert servers(data) == []


@pytest.fixture
def another_user(data):
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", ANOTHER_USER, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline().startswith("postgresql://")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def one(url: str, sql: str):
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def test_data_is_kept_and_no_process_is_left(data):
    with embedded.start(data) as url:
        one(url, "CREATE TABLE kept AS SELECT 7 AS number")
    assert servers(data) == []
    with embedded.start(data) as url:
        assert one(url, "SELECT number FROM kept") == 7


def test_last_user_stops_the_server(data, another_user):
    with embedded.start(data):
        other = another_user()
    assert servers(data)
    other.communicate("\n", timeout=30)
    assert servers(data) == []


def test_killed_user_does_not_keep_the_server_running(data, another_user):
    other = another_user()
    other.kill()
    eventually(lambda: servers(data) == [])


def test_concurrent_users_share_one_server(data):
    def use(_):
        with embedded.start(data) as url:
            return one(url, "SELECT pg_postmaster_start_time()::text")

    with embedded.start(data), ThreadPoolExecutor(12) as pool:
        assert len(set(pool.map(use, range(24)))) == 1


def test_users_may_start_and_stop_in_any_order(data):
    def use(_):
        with embedded.start(data) as url:
            return one(url, "SELECT 1")

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(use, range(18))) == [1] * 18
    assert servers(data) == []


def test_killed_keeper_is_replaced_and_the_server_can_be_stopped(data):
    with embedded.start(data) as url:
        keeper = next(p for p in servers(data) if "local.postgres.keeper" in p.cmdline())
        keeper.kill()
        eventually(lambda: keeper not in servers(data))
        assert one(url, "SELECT 1") == 1
    assert embedded.stop(data)
    assert servers(data) == []


def test_terminal_interrupt_does_not_reach_the_server(data, another_user):
    other = another_user()
    before = servers(data)
    assert all(os.getpgid(process.pid) != os.getpgid(other.pid) for process in before)
    for process in before:
        if "local.postgres.keeper" in process.cmdline():
            process.send_signal(signal.SIGINT)
    assert servers(data) == before


def test_stop_ends_the_server_despite_its_users(data):
    with embedded.start(data):
        assert embedded.stop(data)
        assert servers(data) == []
    assert not embedded.stop(data)


def test_long_path_with_a_space_is_accepted(open_folder):
    data = open_folder / ("a folder " * 12) / "postgres"
    data.parent.mkdir()
    with embedded.start(data, database="other one") as url:
        assert one(url, "SELECT current_database()") == "other one"
    assert servers(data) == []


def test_start_failure_is_reported(open_folder):
    data = open_folder / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("12\n")
    with pytest.raises(RuntimeError, match="did not start"), embedded.start(data):
        pass


def test_given_database_url_is_used(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/fleet")
    embedded.url.cache_clear()
    assert embedded.url() == "postgresql://elsewhere/fleet"
    embedded.url.cache_clear()
