"""The export of download events to S3 before they are removed.

A file is named after its first and last id, so after a crash between writing and removing, the next run writes the same
file again.
"""

from datetime import datetime

import msgspec

from nexmdm.retention import files, policies
from nexmdm.retention.policies import BATCH, Steps
from nexmdm.runtime.database import Executor, Row
from nexmdm.runtime.settings import Settings

PREFIX = "apk_download_events/"  # the only prefix that the function may write to


def downloads(db: Executor, before: datetime, settings: Settings) -> Steps:
    """Remove download events in batches; if a bucket is set, each batch is written to it first."""
    if not settings.download_export_bucket:
        return policies.downloads(db, before)
    return _exported_and_removed(db, before, settings, settings.download_export_bucket)


def _exported_and_removed(db: Executor, before: datetime, settings: Settings, bucket: str) -> Steps:
    """Write a batch, then remove exactly its rows, until none is left."""
    while rows := db.execute(_SELECT, {"before": before, "batch": BATCH}, repeatable=True):
        _write(rows, before, settings, bucket)
        # Ids are passed as ranges, because a list of thousands would make RDS Proxy pin the connection.
        ranges = _ranges([row["id"] for row in rows])
        removed = 0
        for n in range(0, len(ranges), 200):
            part = ranges[n : n + 200]
            bounds = {"first": [first for first, _ in part], "last": [last for _, last in part], "before": before}
            removed += db.execute(_DELETE, bounds)[0]["deleted"]
        yield removed


def _write(rows: list[Row], before: datetime, settings: Settings, bucket: str) -> None:
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    first, last = rows[0]["id"], rows[-1]["id"]
    name = f"{PREFIX}{rows[0]['ts']:%Y/%m/%d}/{first}-{last}"
    facts = {"table": "apk_download_events", "first_id": first, "last_id": last, "older_than": before}
    files.write(settings, bucket, (f"{name}.jsonl.gz", f"{name}.manifest.json"), [(len(rows), lines)], facts)


def _ranges(ids: list[int]) -> list[tuple[int, int]]:
    """Runs of consecutive ids: [1, 2, 3, 7] -> [(1, 3), (7, 7)]."""
    found: list[tuple[int, int]] = []
    for id_ in ids:
        if found and found[-1][1] == id_ - 1:
            found[-1] = (found[-1][0], id_)
        else:
            found.append((id_, id_))
    return found


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
