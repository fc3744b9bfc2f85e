"""Upgrades from an empty database and from every release, downgrades, concurrent runs, and runs beside writers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg2
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg2.extensions import make_dsn

from tests.support.api import ROOT
from tests.support.migrations import ok, rows, schema_differences
from tests.support.postgres import alembic, downgrade, run_sql, upgrade

SCRIPTS = [*ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).walk_revisions()][::-1]
CHAIN = [script.revision for script in SCRIPTS]
# Revisions at which a database in use may be. The path from there passes through every later revision.
FROZEN = (ROOT / "migrations" / "frozen.txt").read_text()
RELEASED = [script.revision for script in SCRIPTS if f"migrations/versions/{Path(script.path).name}" in FROZEN]

# One row per table; columns that are not listed take their defaults. `{n}` makes rows of several revisions distinct.
ROWS = """
INSERT INTO devices (id, alias) VALUES ('d{n}', 'lobby {n}');
INSERT INTO enrollment_tokens (token_id, alias, token_hash, expires_at) VALUES ('t{n}', 'lobby', 'h{n}', now());
INSERT INTO apk_versions (id, version_name, version_code, file_path, file_size{state}) VALUES ({n}, '1', {n}, 'x', 1{adopted});
INSERT INTO apk_installations (device_id, apk_version_id, status) VALUES ('d{n}', {n}, 'pending');
INSERT INTO fcm_dispatches (request_id, device_id, action{end}) VALUES ('r{n}', 'd{n}', 'ping'{now});
INSERT INTO device_heartbeats (device_id, bucket, ts) VALUES ('d{n}', now() - interval '1 second', now());
INSERT INTO apk_download_events (build_id, source, token_id) VALUES ({n}, 'enrollment', 't{n}');
"""  # noqa: E501
TABLES = sorted(set(re.findall(r"INSERT INTO (\w+)", ROWS)))


def fill(url: str, revision: str) -> None:
    place = CHAIN.index(revision)
    beyond = place >= CHAIN.index("e8a41f63d7c2")
    builds = place >= CHAIN.index("f3b7a9c41d58")
    run_sql(
        url,
        ROWS.format(
            n=place + 1,
            state=", state" if builds else "", adopted=", 'adopted'" if builds else "",
            end=", expires_at" if beyond else "", now=", now()" if beyond else "",
        ),
    )  # fmt: skip


def counts(url: str) -> dict[str, int]:
    return {table: rows(url, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}


def test_up_down_and_up_again(empty: str):
    ok(alembic(empty, "upgrade", "head"))
    assert schema_differences(empty) == []
    run_sql(
        empty,
        "INSERT INTO devices (id, alias) VALUES ('d', 'lobby')",
        "INSERT INTO device_alerts (device_id, condition) VALUES ('d', 'silent')",
    )
    downgrade(empty, "base")
    assert rows(empty, "SELECT count(*) FROM alembic_version") == [(0,)]
    upgrade(empty)
    assert schema_differences(empty) == []
    assert "No new upgrade operations" in ok(alembic(empty, "check"))


def test_upgrade_from_each_release_keeps_rows_of_every_table(empty: str):
    """One database passes through all releases; each adds rows to every table, and later ones keep them."""
    standing = [*RELEASED, CHAIN[-2]]
    for number, revision in enumerate(standing):
        upgrade(empty, revision)
        assert counts(empty) == dict.fromkeys(TABLES, number)
        fill(empty, revision)
    kept = dict.fromkeys(TABLES, len(standing))
    upgrade(empty)
    assert counts(empty) == kept
    assert schema_differences(empty) == []
    for revision in reversed(standing):
        downgrade(empty, revision)
        assert counts(empty) == kept, revision
    upgrade(empty)
    assert counts(empty) == kept
    assert schema_differences(empty) == []


def test_read_only_commands_work(at_head: str, tmp_path: Path):
    assert ok(alembic(at_head, "current")) == f"{CHAIN[-1]} (head)\n"
    assert [re.search(r"-> (\w+)", line)[1] for line in ok(alembic(at_head, "history")).splitlines()] == CHAIN[::-1]
    copy = revisions_in(tmp_path)
    ok(own_alembic(at_head, copy, "revision", "--autogenerate", "-m", "nothing"))
    (made,) = (copy / "migrations" / "versions").glob("*_nothing.py")
    assert made.read_text().count("    pass\n") == 2


def test_offline_sql_is_refused_with_the_alternative(empty: str):
    done = alembic(empty, "upgrade", "head", "--sql")
    assert done.returncode == 1
    assert "DRY_RUN=1" in done.stderr


def start(url: str, *arguments: str, folder: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "-c", str(folder / "alembic.ini"), *arguments],
        cwd=folder, env={**os.environ, "DATABASE_URL": url}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_concurrent_upgrades_all_succeed(empty: str):
    runs = [start(empty, "upgrade", "head") for _ in range(4)]
    assert [(run.wait(), run.stderr.read() and "") for run in runs] == [(0, ""), (0, ""), (0, ""), (0, "")]
    assert schema_differences(empty) == []


def test_revision_that_waits_for_a_lock_lets_writers_pass_and_retries(empty: str):
    """A transaction reads devices, a revision wants an exclusive lock on it, and a writer queues behind."""
    upgrade(empty, "f3b7a9c41d58")
    reader = psycopg2.connect(make_dsn(empty))
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM devices, apk_versions")
    run = start(empty, "downgrade", "-1")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    while rows(empty, waiting) == [(0,)]:
        assert run.poll() is None
    writer = psycopg2.connect(make_dsn(empty))
    with writer.cursor() as cursor:
        cursor.execute("SET statement_timeout = '3s'")  # above lock_timeout, below the reader's stay
        cursor.execute("INSERT INTO devices (id, alias) VALUES ('d', 'lobby')")
        cursor.execute("""INSERT INTO apk_versions (id, version_name, version_code, file_path, file_size, state)
                          VALUES (1, '1', 1, 'x', 1, 'adopted')""")
    writer.commit()
    writer.close()
    assert "a lock could not be acquired" in run.stderr.readline()
    reader.close()
    assert run.wait() == 0
    assert rows(empty, "SELECT version_num FROM alembic_version") == [("e8a41f63d7c2",)]


def revisions_in(folder: Path, **sources: str) -> Path:
    """A copy of the migrations with additional revisions at the end."""
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", folder)
    parent = CHAIN[-1]
    for name, source in sources.items():
        (folder / "migrations" / "versions" / f"{name}.py").write_text(
            f"from alembic import op\nfrom migrations import concurrently\n"
            f"revision, down_revision = {name!r}, {parent!r}\n{source}\n"
        )
        parent = name
    return folder


def own_alembic(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    run = start(url, *arguments, folder=folder)
    error = run.communicate()[1]
    return subprocess.CompletedProcess(arguments, run.returncode, "", error)


CONCURRENT = """
def upgrade():
    concurrently.create_index("ix_devices_model", "devices", "model")
def downgrade():
    concurrently.drop_index("ix_devices_model", "devices")"""
PARTITIONED = """
def upgrade():
    concurrently.create_index("ix_hb_status", "device_heartbeats", "status", where="status <> 'ok'")
def downgrade():
    concurrently.drop_index("ix_hb_status", "device_heartbeats")"""
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{}')"


def test_concurrent_indexes_are_created_and_dropped_while_another_run_waits(at_head: str, tmp_path: Path):
    folder = revisions_in(tmp_path, one=CONCURRENT, two=PARTITIONED)
    runs = [start(at_head, "upgrade", "head", folder=folder) for _ in range(2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    for name in ("ix_devices_model", "ix_hb_status"):
        assert rows(at_head, VALID.format(name)) == [(True,)]
    ok(own_alembic(at_head, folder, "downgrade", CHAIN[-1]))
    assert rows(at_head, VALID.format("ix_devices_model")) == []


def test_invalid_leftover_index_is_recreated(at_head: str, tmp_path: Path):
    folder = revisions_in(tmp_path, one=CONCURRENT)
    run_sql(
        at_head,
        "CREATE INDEX ix_devices_model ON devices (model)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_devices_model'::regclass",
    )
    ok(own_alembic(at_head, folder, "upgrade", "head"))
    assert rows(at_head, VALID.format("ix_devices_model")) == [(True,)]


TIMEOUTS = """
def upgrade():
    op.execute("CREATE TABLE seen AS SELECT current_setting('lock_timeout') AS l, current_setting('statement_timeout') AS s")
def downgrade():
    op.execute("DROP TABLE seen")"""  # noqa: E501


def test_timeouts_are_set_in_each_transaction(at_head: str, tmp_path: Path):
    folder = revisions_in(tmp_path, one=TIMEOUTS)
    ok(own_alembic(at_head, folder, "upgrade", "head"))
    assert rows(at_head, "SELECT * FROM seen") == [("1s", "2s")]


FAILS = """
def upgrade():
    op.execute("CREATE TABLE half ()")
    op.execute("SELECT 1 / 0")
def downgrade():
    pass"""


def test_failed_revision_leaves_nothing_and_earlier_ones_are_kept(at_head: str, tmp_path: Path):
    folder = revisions_in(tmp_path, one=TIMEOUTS, two=FAILS)
    assert own_alembic(at_head, folder, "upgrade", "head").returncode == 1
    assert rows(at_head, "SELECT version_num, to_regclass('half') FROM alembic_version") == [("one", None)]


def test_unreachable_database_is_reported_in_one_line(empty: str):
    done = alembic("postgresql://nobody@127.0.0.1:9/none", "upgrade", "head")
    assert done.returncode == 1
    assert done.stderr.startswith("migrate: the database of DATABASE_URL does not respond: ")
    assert "Traceback" not in done.stderr
