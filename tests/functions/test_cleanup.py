"""The scheduled function: its result, its metrics, its dry run, and the export of downloads before their removal."""

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import boto3
import pytest
from moto.server import ThreadedMotoServer
from nexmdm.retention import files
from nexmdm.runtime import metrics as metrics_module
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from functions.cleanup.handler import handler
from tests.support.api import ROOT
from tests.support.postgres import run_sql


def context(seconds: float = 60) -> SimpleNamespace:
    return SimpleNamespace(
        aws_request_id="1", function_name="Cleanup", get_remaining_time_in_millis=lambda: int(seconds * 1000)
    )


@pytest.fixture(autouse=True)
def discard_metrics() -> None:
    """Discard the counts that tests leave behind when they call the cleanup without its handler."""
    metrics_module.flush()


@pytest.fixture
def old_downloads(url: str) -> int:
    run_sql(
        url,
        """INSERT INTO apk_versions (id, version_name, version_code, file_path, file_size, state)
           VALUES (1, '1', 1, 'x', 1, 'adopted')""",
        """INSERT INTO apk_download_events (build_id, source, admin_user, ts)
           SELECT 1, 'manual', 'user-' || n, now() - make_interval(days => CASE WHEN n % 10 = 0 THEN 1 ELSE 8 END)
           FROM generate_series(1, 6000) AS n""",
    )
    return 5400


def metrics(text: str) -> dict[str, list[float]]:
    record = next(json.loads(line) for line in text.splitlines() if '"_aws"' in line)
    return {metric["Name"]: record[metric["Name"]] for metric in record["_aws"]["CloudWatchMetrics"][0]["Metrics"]}


def test_result_and_metrics_are_given_per_policy(old_downloads: int, capsys: pytest.CaptureFixture[str]):
    answer = handler({}, context())
    assert answer["complete"] is True
    assert list(answer["policies"]) == [
        "heartbeats", "fcm_dispatches", "apk_downloads", "enrollment_tokens", "device_alerts", "operator_events",
        "fleet_history", "device_history",
    ]  # fmt: skip
    assert answer["policies"]["apk_downloads"]["deleted"] == old_downloads
    measured = metrics(capsys.readouterr().out)
    assert measured["ApkDownloadsRemoved"] == [5400]
    assert measured["CleanupSucceeded"] == [1]
    assert measured["CleanupFailed"] == [0]
    assert measured["HeartbeatsWithoutPartition"] == [0]


def test_cleanup_without_time_removes_nothing_and_reports_no_success(
    old_downloads: int, db: Database, capsys: pytest.CaptureFixture[str]
):
    answer = handler({}, context(seconds=10))
    assert answer["complete"] is False
    assert db.execute("SELECT count(*) AS n FROM apk_download_events") == [{"n": 6000}]
    assert metrics(capsys.readouterr().out)["CleanupSucceeded"] == [0]


def test_cleanup_writes_one_log_record_per_policy(old_downloads: int, caplog: pytest.LogCaptureFixture):
    handler({}, context())
    records = [record for record in caplog.records if getattr(record, "event", None) == "cleanup"]
    assert [record.entity for record in records] == [
        "device_heartbeats", "fcm_dispatches", "apk_download_events", "enrollment_tokens",
        "device_alerts",
        "operator_events",
        "fleet_history", "device_history",
    ]  # fmt: skip
    assert records[2].keys["deleted"] == old_downloads
    assert records[2].keys["cutoff"] < records[1].keys["cutoff"]


def test_dry_run_changes_nothing(old_downloads: int, db: Database):
    answer = handler({"dry_run": True}, context())
    assert answer["policies"]["apk_downloads"] == {"due": old_downloads}
    assert db.execute("SELECT count(*) AS n FROM apk_download_events") == [{"n": 6000}]


def test_boto3_is_not_loaded_without_an_export(url: str):
    code = """
import sys
from types import SimpleNamespace
from functions.cleanup.handler import handler
handler({}, SimpleNamespace(aws_request_id="", function_name="", get_remaining_time_in_millis=lambda: 60000))
print([name for name in sys.modules if name.startswith(("boto3", "alembic", "sqlalchemy", "firebase"))])"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[object]:
    server = ThreadedMotoServer(port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_S3": endpoint, "DOWNLOAD_EXPORT_BUCKET": "exports",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings.load.cache_clear()
    files._s3.cache_clear()
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="exports", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield client
    for found in client.list_objects_v2(Bucket="exports").get("Contents", []):
        client.delete_object(Bucket="exports", Key=found["Key"])
    client.delete_bucket(Bucket="exports")
    server.stop()
    files._s3.cache_clear()


def exported(client) -> dict[str, bytes]:
    keys = [found["Key"] for found in client.list_objects_v2(Bucket="exports").get("Contents", [])]
    return {key: client.get_object(Bucket="exports", Key=key)["Body"].read() for key in keys}


def test_removed_downloads_are_exported_with_a_manifest(bucket, old_downloads: int, db: Database):
    due = {row["id"] for row in db.execute("SELECT id FROM apk_download_events WHERE ts < now() - interval '7 days'")}

    assert handler({}, context())["policies"]["apk_downloads"]["deleted"] == old_downloads

    files = exported(bucket)
    lines = [json.loads(line) for key, body in files.items() if key.endswith(".jsonl.gz")
             for line in gzip.decompress(body).splitlines()]  # fmt: skip
    assert sorted(line["id"] for line in lines) == sorted(due)
    manifests = [json.loads(body) for key, body in files.items() if key.endswith(".manifest.json")]
    assert sum(manifest["rows"] for manifest in manifests) == old_downloads
    for manifest in manifests:
        assert hashlib.sha256(files[manifest["file"]]).hexdigest() == manifest["sha256"]
    assert db.execute("SELECT count(*) AS n FROM apk_download_events") == [{"n": 600}]


def test_failed_export_removes_nothing(bucket, old_downloads: int, db: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOWNLOAD_EXPORT_BUCKET", "no-such-bucket")
    settings.load.cache_clear()
    answer = handler({}, context())
    error = answer["policies"]["apk_downloads"]["error"]
    assert error.startswith("NotWritten: s3://no-such-bucket/apk_download_events/")
    assert error.endswith(" was not written (NoSuchBucket). Its rows were kept; the next cleanup writes it again.")
    assert answer["policies"]["enrollment_tokens"]["done"] is True
    assert db.execute("SELECT count(*) AS n FROM apk_download_events") == [{"n": 6000}]


def test_export_after_a_kill_and_more_due_rows_has_each_row_in_one_file(bucket, old_downloads, url, db, monkeypatch):
    """The first run writes files and fails to remove their rows; when the next one runs, more hours are due."""
    run_sql(url, "UPDATE apk_download_events SET ts = now() - interval '8 days' + id * interval '1 minute'")
    events = [row["id"] for row in db.execute("SELECT id FROM apk_download_events")]
    run_sql(url, "CREATE RULE keep AS ON DELETE TO apk_download_events DO INSTEAD NOTHING")
    assert handler({}, context())["policies"]["apk_downloads"]["error"] is not None
    before = exported(bucket)
    assert len(before) == 2
    run_sql(url, "DROP RULE keep ON apk_download_events")
    monkeypatch.setenv("DOWNLOAD_RETENTION_DAYS", "6")
    settings.load.cache_clear()
    assert handler({}, context())["policies"]["apk_downloads"]["error"] is None
    files = exported(bucket)
    assert before.items() <= files.items()
    ids = [json.loads(line)["id"] for key, body in files.items() if key.endswith(".gz")
           for line in gzip.decompress(body).splitlines()]  # fmt: skip
    left = [row["id"] for row in db.execute("SELECT id FROM apk_download_events")]
    assert sorted(ids + left) == sorted(events)
