"""Migrations and every writing verb through a transaction-mode pooler with two server connections."""

import os
import subprocess
import sys
import time
from datetime import datetime, timedelta

import msgspec
import psycopg2
import pytest
from nexmdm.commands import queue, single
from nexmdm.commands.queue import Answer, Result
from nexmdm.commands.single import Command, OneDevice
from nexmdm.heartbeats import body as reported
from nexmdm.heartbeats import partitions, record
from nexmdm.heartbeats.body import HeartbeatBody
from nexmdm.retention import policies, run
from nexmdm.runtime import database, lenient, settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn

from tests.support.agent import an_hour_ago, heartbeat
from tests.support.api import ROOT, call, enroll
from tests.support.commands import enrolled, send, state, sweep
from tests.support.fcm import running_fake
from tests.support.postgres import alembic
from tests.support.races import errors, race
from tests.support.relay import Relay
from tests.system.dispatch.machine import posts_that_count
from tests.system.torture.load import under_load
from tests.system.torture.stack import standing

CLIENTS = 24


@pytest.fixture
def db(line: Relay):
    """Overrides the suite's fixture: the connection goes through the pooler."""
    connection = Database(make_dsn(line.url))
    yield connection
    connection.close()


def passes(*arguments: str, line: Relay) -> None:
    done = alembic(line.url, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def schema_passes(line: Relay) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nexmdm.schema"],
        cwd=ROOT, env={**os.environ, "DATABASE_URL": line.url}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "Schema validation passed!\n", done.stdout + done.stderr


def minutes(count: int) -> list[datetime]:
    return [an_hour_ago() + timedelta(minutes=n) for n in range(count)]


def test_pooler_refuses_options_as_rds_proxy_does(pooled: str):
    with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter"):
        psycopg2.connect(pooled, options="-c statement_timeout=1s")


def test_up_down_and_up_again(empty_line: Relay):
    passes("upgrade", "head", line=empty_line)
    passes("downgrade", "base", line=empty_line)
    passes("upgrade", "head", line=empty_line)
    passes("check", line=empty_line)
    schema_passes(empty_line)


def test_concurrent_upgrades_through_the_pooler(empty_line: Relay):
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT, env={**os.environ, "DATABASE_URL": empty_line.url}, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    schema_passes(empty_line)


def test_concurrent_callers_make_partitions_through_the_pooler(db: Database, line: Relay):
    for partition in partitions.bounds(db)[-3:]:
        partitions.drop(db, partition.name)
    before = len(partitions.bounds(db))
    assert errors(race(line.url, *[lambda own: partitions.ensure_partitions(own, settings.load())] * 8)) == []
    assert len(partitions.bounds(db)) == before + 3


def test_devices_enroll_and_report(db: Database):
    device_id, token = enroll()
    assert call("POST", "/v1/heartbeat", {"battery_pct": 50}, token=token).status == 200
    batch = call("POST", "/v1/heartbeats", {"heartbeats": [heartbeat(at) for at in minutes(3)]}, token=token)
    assert batch.status == 200, batch.text
    counted = db.execute("SELECT count(*) AS n FROM device_heartbeats WHERE device_id = %(id)s", {"id": device_id})
    assert counted[0]["n"] == 4


def test_batch_above_16_kib_closes_its_connection(line: Relay):
    _, token = enroll()
    body = {"heartbeats": [heartbeat(at) for at in minutes(50)]}
    assert call("POST", "/v1/heartbeats", body, token=token).status == 200
    assert max(map(len, line.statements)) > 16 * 1024
    deadline = time.monotonic() + 10
    while line.sent[-1] != "X":  # the relay's thread may record it a moment later
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert call("POST", "/v1/heartbeat", {}, token=token).status == 200


def test_devices_report_concurrently(db: Database, line: Relay):
    config = settings.load()
    tokens = [enroll(f"device-{n}")[1] for n in range(CLIENTS)]

    def reports(token: str):
        read, _ = lenient.read(msgspec.json.encode(heartbeat()), HeartbeatBody)
        report = reported.report(read, config.unity_package, [])
        return lambda own: [record.for_token(own, token, [report], config) for _ in range(20)]

    assert errors(race(line.url, *map(reports, tokens))) == []
    rows = db.execute("SELECT count(DISTINCT device_id) AS n FROM device_heartbeats")
    assert rows[0]["n"] == CLIENTS


def test_command_is_accepted_claimed_and_settled(line: Relay, db: Database, monkeypatch: pytest.MonkeyPatch):
    with running_fake(monkeypatch) as fake_fcm:
        device_id, _ = enrolled("lobby", "fcm:lobby")
        assert send(device_id, "r-1").json["state"] == "sent"
        assert send(device_id, "r-1").headers["idempotency-replayed"] == "true"
        assert len(fake_fcm.posts("r-1")) == 1
        assert not any(sweep().values())


def test_concurrent_callers_accept_claim_and_settle_one_command(line: Relay, db: Database):
    device_id, _ = enrolled("lobby", "fcm:lobby")
    command = Command("r-1", OneDevice(device_id), "ping", {}, 600, Actor("tests"))
    accepted = race(line.url, *[lambda own: single.accept(own, command)[1]] * CLIENTS)
    assert sorted(accepted) == [False] * (CLIENTS - 1) + [True]
    claims = race(line.url, *[lambda own: queue.claim(own, "r-1", 90)] * CLIENTS)
    (claim,) = [claim for claim in claims if claim]
    fence, result = claim.fence, Result(outcome="sent", fcm_status="sent")
    settled = race(line.url, *[lambda own: queue.settle(own, [Answer("r-1", fence, result)])[0]] * 4)
    assert set(settled) <= {"sent", None}
    assert state(db) == "sent"


def test_retention_runs_every_step(db: Database):
    device_id, _ = enroll()
    db.execute(
        "INSERT INTO device_heartbeats (device_id, bucket, ts)"
        " SELECT %(id)s, at, at FROM generate_series(date_trunc('hour', now()) - interval '4 days',"
        "                                            now() - interval '1 day', interval '10 minutes') AS at",
        {"id": device_id},
    )
    done = run.clean(database.connection(), settings.load(), lambda: 60)
    assert done.complete, done
    assert done.policies["heartbeats"].deleted > 0
    assert set(policies.due(db, settings.load()).values()) == {0}


MORE = "INSERT INTO devices (id, alias) SELECT gen_random_uuid(), 'more-' || n FROM generate_series(1, 300) AS n"


def test_fleet_commands_sweeps_and_cleanups_run_concurrently(line: Relay, db: Database):
    """Everything runs through the gateway in separate processes, and the relay checks what each of them sends."""
    db.execute(MORE)
    everybody = [row["id"] for row in db.execute("SELECT id FROM devices")]
    schedules = ["--every", "fcm_dispatch=0.5", "--every", "cleanup=1"]
    with standing(line.url, 3, *schedules, HEARTBEAT_RETENTION_DAYS="1") as stack:
        with under_load(stack) as load, stack.operator() as operator:
            for n in range(30):
                one = {"action": "wake", "request_id": f"one-{n}"}
                many = {"action": "ping", "request_id": f"many-{n}", "device_ids": load.device_ids}
                if n == 0:
                    many["device_ids"] = everybody
                path = f"/v1/devices/{load.device_ids[n % len(load.device_ids)]}/commands"
                assert operator.post(path, json=one).status_code == 202
                assert operator.post("/v1/commands", json=many).status_code == 202
                load.wait_for_answers(3, {200}, time.monotonic())
        assert {answer.status for answer in load.record.answers} == {200}
        assert max(posts_that_count(stack.fake_fcm, f"one-{n}") for n in range(30)) == 1
        assert not stack.errors.read_text()
    rows = db.execute("SELECT device_id, extract(epoch FROM bucket)::bigint AS bucket FROM device_heartbeats")
    assert load.record.acknowledged <= {(row["device_id"], row["bucket"]) for row in rows}
    assert any("command_batches" in text and len(text) > 16 * 1024 for text in line.statements)
    assert any("DELETE FROM fcm_dispatches" in text for text in line.statements)
