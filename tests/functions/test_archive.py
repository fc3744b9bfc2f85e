"""The heartbeat archive: nothing is dropped unless it is completely in S3, whatever fails or is killed."""

import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import psycopg2
import pytest
from nexmdm.heartbeats import partitions
from nexmdm.persistence import cleanup_old_apk_downloads, cleanup_old_heartbeats
from nexmdm.retention import files, policies, run
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from functions.cleanup.handler import handler
from tests.support.api import ROOT, call
from tests.support.postgres import run_sql
from tests.support.races import errors, race
from tests.support.s3_front import Front, front

pytestmark = pytest.mark.long

BUCKET = "nexmdm-test-archive"
CONTEXT = SimpleNamespace(aws_request_id="1", function_name="Cleanup", get_remaining_time_in_millis=lambda: 120_000)
CLEANUP = """
from nexmdm.retention import run
from nexmdm.runtime import database, settings
run.clean(database.connection(), settings.load(), lambda: 60)"""


@pytest.fixture
def door(s3_server: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """A proxy in front of an S3 with an empty bucket that the settings name."""
    with front(s3_server) as door:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_S3": door.url, "HEARTBEAT_EXPORT_BUCKET": BUCKET,
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        settings.load.cache_clear()
        files._s3.cache_clear()
        bucket = boto3.resource("s3", endpoint_url=s3_server).Bucket(BUCKET)
        bucket.create(CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield door
        bucket.objects.all().delete()
        bucket.delete()
        settings.load.cache_clear()
        files._s3.cache_clear()


@pytest.fixture
def stored(s3_server: str, door: Front) -> Callable[[], dict[str, bytes]]:
    """A function that returns the contents of the bucket."""

    def read() -> dict[str, bytes]:
        bucket = boto3.resource("s3", endpoint_url=s3_server).Bucket(BUCKET)
        return {each.key: each.get()["Body"].read() for each in bucket.objects.all()}

    return read


@pytest.fixture
def covered(db: Database) -> None:
    """Create partitions for reports older than retention, as if their days had passed since."""
    first = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=4)
    for n in range(16):
        lower = first + n * partitions.WIDTH
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {partitions.name(lower)} PARTITION OF device_heartbeats"
            f" FOR VALUES FROM ('{lower}') TO ('{lower + partitions.WIDTH}')"
        )


def fill(url: str, device: str, large: bool = False) -> None:
    """Add reports of four days. With `large`, the oldest partition holds 12 MB of noise: two parts, compressed."""
    run_sql(
        url,
        f"""INSERT INTO device_heartbeats (device_id, ts, bucket, battery_pct, temp_c, ssid, unity_running)
            SELECT '{device}', t, date_bin('10 seconds', t, 'epoch'), n % 101, n / 8.0,
                CASE WHEN {large} AND t < date_trunc('day', now(), 'UTC') - interval '90 hours'
                    THEN (SELECT string_agg(encode(sha256((n || '/' || m)::bytea), 'base64'), '')
                          FROM generate_series(1, 5600) AS m)
                    ELSE 'quote " backslash ' || chr(92) || ' line ' || chr(10) || ' snow ' || chr(9731) END, n % 3 = 0
            FROM (SELECT t, row_number() OVER ()::int AS n FROM generate_series(
                date_trunc('day', now(), 'UTC') - interval '4 days', now(), interval '7 minutes') AS t)""",
    )


def rows(db: Database) -> dict[int, dict[str, Any]]:
    return {row["hb_id"]: row for row in db.execute("SELECT * FROM device_heartbeats")}


def checked(found: dict[str, bytes]) -> dict[int, dict[str, Any]]:
    """The archive's rows by id, after checking that every file has a correct manifest."""
    manifests = {key: json.loads(body) for key, body in found.items() if key.endswith(".manifest.json")}
    assert {each["file"] for each in manifests.values()} == {key for key in found if key.endswith(".jsonl.gz")}
    archived: dict[int, dict[str, Any]] = {}
    for manifest in manifests.values():
        body = found[manifest["file"]]
        lines = [json.loads(line) for line in gzip.decompress(body).splitlines()]
        assert (hashlib.sha256(body).hexdigest(), len(lines)) == (manifest["sha256"], manifest["rows"])
        names = [column["name"] for column in manifest["schema"]]
        for line in lines:
            assert list(line) == names
            assert manifest["from"][:19] <= line["bucket"][:19] < manifest["to"][:19]
            assert manifest["file"].startswith(f"device_heartbeats/day={line['bucket'][:10]}/")
            assert line["hb_id"] not in archived
            archived[line["hb_id"]] = line
    return archived


def same(archived: dict[int, dict[str, Any]], told: dict[int, dict[str, Any]]) -> bool:
    def read(row: dict[str, Any]) -> dict[str, Any]:
        times = ("ts", "bucket", "received_at")
        return {**row, **{name: datetime.fromisoformat(row[name]) for name in times}}

    return {id_: read(row) for id_, row in archived.items()} == told


def test_archive_holds_exactly_the_dropped_rows(covered, url, db, device, stored):
    fill(url, device)
    before = rows(db)
    answer = handler({}, CONTEXT)["policies"]["heartbeats"]
    assert (answer["done"], answer["error"]) == (True, None)
    left = rows(db)
    archived = checked(stored())
    assert len(archived) == answer["deleted"] > 0
    assert same(archived, {id_: row for id_, row in before.items() if id_ not in left})
    assert archived.keys() | left.keys() == before.keys()
    # All remaining rows belong to partitions that are not over yet.
    oldest = datetime.now(UTC) - timedelta(days=2) - partitions.WIDTH - timedelta(minutes=1)
    assert min(row["bucket"] for row in left.values()) >= oldest


def test_archive_manifest_matches_its_schema(covered, url, db, device, stored):
    fill(url, device)
    handler({}, CONTEXT)
    manifest = json.loads(next(body for key, body in stored().items() if key.endswith(".manifest.json")))
    types = {column["name"]: column["type"] for column in manifest["schema"]}
    assert types["ts"] == "timestamp with time zone"
    assert (types["temp_c"], types["unity_running"], types["hb_id"]) == ("double precision", "boolean", "bigint")
    columns = db.execute("SELECT * FROM device_heartbeats LIMIT 1")[0]
    assert types.keys() == columns.keys()


def test_rows_of_the_default_partition_are_archived(url, db, device, stored):
    fill(url, device)
    before = rows(db)
    assert partitions.in_default(db) > 0
    due = handler({"dry_run": True}, CONTEXT)["policies"]["heartbeats"]["due"]
    assert handler({}, CONTEXT)["policies"]["heartbeats"]["deleted"] == due > 0
    archived = checked(stored())
    assert archived.keys() | rows(db).keys() == before.keys()
    assert len(archived) == due


def test_large_partition_is_uploaded_in_parts(covered, url, db, device, stored, door):
    fill(url, device, large=True)
    before = rows(db)
    assert handler({}, CONTEXT)["policies"]["heartbeats"]["error"] is None
    assert any("partNumber=2" in path for _, path in door.seen)
    archived = checked(stored())
    assert archived.keys() | rows(db).keys() == before.keys()


FAILURES: dict[str, tuple[int, Callable[[str, str], bool]]] = {
    "S3 is broken": (500, lambda method, path: True),
    "S3 is busy": (503, lambda method, path: True),
    "the role may not": (403, lambda method, path: True),
    "the bucket is gone": (404, lambda method, path: True),
    "the manifest is refused": (403, lambda method, path: "manifest" in path),
    "the second part is refused": (403, lambda method, path: "partNumber=2" in path),
    "the upload cannot be completed": (403, lambda method, path: method == "POST" and "uploadId" in path),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_partition_is_not_dropped_if_its_upload_fails(covered, url, db, device, stored, door, failure, caplog):
    status, refused = FAILURES[failure]
    in_parts = "part" in failure or "completed" in failure
    fill(url, device, large=in_parts)
    before = rows(db)
    door.rule = lambda method, path: status if refused(method, path) else None
    answer = handler({}, CONTEXT)
    error = answer["policies"]["heartbeats"]["error"]
    assert error.startswith(f"NotWritten: s3://{BUCKET}/device_heartbeats/day=")
    assert "Its rows were kept; the next cleanup writes it again." in error
    assert any(getattr(record, "reason", None) == error.removeprefix("NotWritten: ") for record in caplog.records)
    assert (answer["complete"], answer["policies"]["enrollment_tokens"]["done"]) == (False, True)
    assert rows(db) == before
    assert db.execute("SELECT count(*) AS n FROM device_history") == [{"n": 0}]
    if in_parts:
        assert door.seen[-1][0] == "DELETE", "the upload was not aborted"
    door.rule = lambda method, path: None
    assert handler({}, CONTEXT)["policies"]["heartbeats"]["error"] is None
    assert checked(stored()).keys() | rows(db).keys() == before.keys()


def test_unreachable_s3_drops_nothing(covered, url, db, device, door, monkeypatch):
    fill(url, device)
    before = rows(db)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    settings.load.cache_clear()
    error = handler({}, CONTEXT)["policies"]["heartbeats"]["error"]
    assert "(EndpointConnectionError)" in error
    assert rows(db) == before


def started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLEANUP], cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ, text=True
    )


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("at", ["partNumber=1", "partNumber=2", "manifest"])
def test_cleanup_killed_during_the_upload_drops_nothing_and_uploads_again(covered, url, db, device, stored, door, at):
    fill(url, device, large="part" in at)
    before = rows(db)
    reached, go_on = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> int | None:
        if at in path:
            reached.set()
            go_on.wait()
            return 503
        return None

    door.rule = hold
    process = started()
    while not reached.wait(0.1):
        assert process.poll() is None
    killed(process)
    door.rule = lambda method, path: None
    go_on.set()
    assert rows(db) == before
    assert not any(key.endswith(".manifest.json") for key in stored())
    assert handler({}, CONTEXT)["policies"]["heartbeats"]["error"] is None
    assert checked(stored()).keys() | rows(db).keys() == before.keys()


def test_cleanup_killed_between_upload_and_drop_uploads_the_same_again(covered, url, db, device, stored):
    fill(url, device)
    before = rows(db)
    reader = psycopg2.connect(make_dsn(url))
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM device_heartbeats")
    process = started()
    dropping = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%partitions.drop%' AND wait_event = 'PgSleep'"
    while not (found := db.execute(dropping)):
        assert process.poll() is None
    killed(process)
    db.execute("SELECT pg_terminate_backend(%(pid)s)", found[0])
    reader.close()
    first = stored()
    assert len(first) == 2
    assert rows(db) == before
    assert handler({}, CONTEXT)["policies"]["heartbeats"]["error"] is None
    assert first.items() <= stored().items()
    assert checked(stored()).keys() | rows(db).keys() == before.keys()


def test_row_that_arrives_between_upload_and_drop_is_not_lost(covered, url, db, device, stored, door):
    fill(url, device)
    last = {}

    def insert(method: str, path: str) -> int | None:
        if "manifest" in path and not last:
            last.update(
                db.execute(
                    """INSERT INTO device_heartbeats (device_id, ts, bucket)
                       SELECT device_id, ts + interval '11 seconds', bucket + interval '10 seconds'
                       FROM device_heartbeats ORDER BY bucket LIMIT 1 RETURNING hb_id"""
                )[0]
            )
        return None

    door.rule = insert
    before = rows(db)
    answer = handler({}, CONTEXT)["policies"]["heartbeats"]
    assert answer["error"].startswith("Changed: device_heartbeats_p")
    assert rows(db).keys() == before.keys() | {last["hb_id"]}
    assert handler({}, CONTEXT)["policies"]["heartbeats"]["error"] is None
    assert last["hb_id"] in checked(stored())


def test_concurrent_cleanups_archive_each_row(covered, url, db, device, stored):
    fill(url, device)
    before = rows(db)
    results = race(url, *[lambda own: run.clean(own, settings.load(), lambda: 60)] * 3)
    assert errors(results) == []
    assert [result.policies["heartbeats"].error for result in results] == [None] * 3
    assert checked(stored()).keys() | rows(db).keys() == before.keys()
    assert policies.due(db, settings.load())["heartbeats"] == 0


def test_documented_calls_archive_rows_too(covered, url, db, device, stored, monkeypatch):
    monkeypatch.setenv("DOWNLOAD_EXPORT_BUCKET", BUCKET)
    settings.load.cache_clear()
    fill(url, device)
    run_sql(
        url,
        """INSERT INTO apk_versions (id, version_name, version_code, file_path, file_size, state)
           VALUES (1, '1', 1, 'x', 1, 'adopted')""",
        """INSERT INTO apk_download_events (build_id, source, admin_user, ts)
           VALUES (1, 'manual', 'me', now() - interval '8 days')""",
    )
    engine = create_engine(settings.load().sqlalchemy_url)
    with Session(engine) as session:
        dropped = cleanup_old_heartbeats(session)
        assert cleanup_old_apk_downloads(session) == 1
    engine.dispose()
    found = stored()
    assert len(checked({key: body for key, body in found.items() if "heartbeats" in key})) == dropped > 0
    assert sum("apk_download_events" in key for key in found) == 2


def test_history_includes_archived_rows(covered, url, db, device, stored):
    fill(url, device)
    begin = (datetime.now(UTC) - timedelta(days=10)).isoformat()
    expected = call("GET", f"/v1/devices/{device}/history", query={"from": begin}).json
    handler({}, CONTEXT)
    assert call("GET", f"/v1/devices/{device}/history", query={"from": begin}).json == expected


def test_documented_table_has_the_columns_of_the_archive(covered, url, db, device, stored):
    fill(url, device)
    handler({}, CONTEXT)
    manifest = json.loads(next(body for key, body in stored().items() if key.endswith(".manifest.json")))
    document = (ROOT / "docs/archive.md").read_text()
    listed = re.search(r"CREATE EXTERNAL TABLE device_heartbeats \((.*?)\n\)", document, re.DOTALL)[1]
    types = {"timestamp with time zone": "string", "text": "string", "integer": "int", "double precision": "double"}
    assert [column.split() for column in listed.replace("\n", " ").split(",")] == [
        [column["name"], types.get(column["type"], column["type"])] for column in manifest["schema"]
    ]


def test_rows_are_read_only_as_parts_are_uploaded():
    taken = 0

    def chunks() -> Iterator[tuple[int, bytes]]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield 1, os.urandom(1000)

    body = files._Compressed(chunks())
    assert len(body.read(5_000)) == 5_000
    # zlib buffers up to one window.
    assert taken < 100
    while body.read(5_000):
        assert len(body._ready) < 5_000 + 70_000
    assert body.rows == 100
