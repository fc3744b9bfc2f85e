"""Download events past their time go to S3 before they are removed: gzip JSON lines, and a manifest for each file.

A file is named for its first and last id, so a run that was killed between writing and removing writes the same file
again. No transaction is open while S3 is called.
"""

import gzip
import hashlib
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from nexmdm.retention.policies import BATCH, Steps
from nexmdm.runtime import endpoints
from nexmdm.runtime.database import Executor, Row
from nexmdm.runtime.settings import Settings

PREFIX = "apk_download_events/"  # what the function may write under


def exported_and_removed(db: Executor, before: datetime, settings: Settings) -> Steps:
    """Write a batch, then remove exactly its rows, until none is left."""
    while rows := db.execute(_SELECT, {"before": before, "batch": BATCH}, repeatable=True):
        _write(rows, before, settings)
        # Ids of a batch as ranges: a list of thousands would be a statement that a proxy pins its connection for.
        ranges = _ranges([row["id"] for row in rows])
        removed = 0
        for n in range(0, len(ranges), 200):
            part = ranges[n : n + 200]
            bounds = {"first": [first for first, _ in part], "last": [last for _, last in part], "before": before}
            removed += db.execute(_DELETE, bounds)[0]["deleted"]
        yield removed


def _write(rows: list[Row], before: datetime, settings: Settings) -> None:
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    body = gzip.compress(lines, mtime=0)
    first, last = rows[0]["id"], rows[-1]["id"]
    name = f"{PREFIX}{rows[0]['ts']:%Y/%m/%d}/{first}-{last}"
    manifest = {
        "file": f"{name}.jsonl.gz",
        "table": "apk_download_events",
        "rows": len(rows),
        "first_id": first,
        "last_id": last,
        "older_than": before,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    client = _s3(settings.aws_endpoint_url_s3 or endpoints.url("s3", settings.region))
    for key, content in ((f"{name}.jsonl.gz", body), (f"{name}.manifest.json", msgspec.json.encode(manifest))):
        client.put_object(Bucket=settings.download_export_bucket, Key=key, Body=content)


def _ranges(ids: list[int]) -> list[tuple[int, int]]:
    """Runs of consecutive ids: [1, 2, 3, 7] -> [(1, 3), (7, 7)]."""
    found: list[tuple[int, int]] = []
    for id_ in ids:
        if found and found[-1][1] == id_ - 1:
            found[-1] = (found[-1][0], id_)
        else:
            found.append((id_, id_))
    return found


@lru_cache(maxsize=1)
def _s3(endpoint: str) -> Any:
    # Loaded here and not above: boto3 costs 280 ms, and most environments export nothing.
    import boto3

    return boto3.client("s3", endpoint_url=endpoint)


_SELECT = """
SELECT id, build_id, source, token_id, device_id, admin_user, ip, ts FROM apk_download_events
WHERE ts < %(before)s ORDER BY id LIMIT %(batch)s
"""

_DELETE = """
WITH gone AS (
    DELETE FROM apk_download_events e USING unnest(%(first)s::bigint[], %(last)s::bigint[]) AS range(first, last)
    WHERE e.id BETWEEN range.first AND range.last AND e.ts < %(before)s RETURNING 1
)
SELECT count(*) AS deleted FROM gone
"""
