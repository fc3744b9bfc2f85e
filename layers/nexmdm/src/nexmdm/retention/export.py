"""The export of download events to S3 before they are removed.

A file has the rows of one hour, and is written when all of them are due. An hour that is over gets no more rows, so
after a crash between writing and removing, any later run writes the same file again.
"""

from datetime import datetime

import msgspec

from nexmdm.retention import files, policies
from nexmdm.retention.policies import Steps
from nexmdm.runtime.database import Executor, Row
from nexmdm.runtime.settings import Settings

PREFIX = "apk_download_events/"  # the only prefix that the function may write to


def downloads(db: Executor, before: datetime, settings: Settings) -> Steps:
    """Remove download events in batches; if a bucket is set, only whole hours, each written to it first."""
    if not settings.download_export_bucket:
        return policies.downloads(db, before)
    return _exported_and_removed(db, before, settings, settings.download_export_bucket)


def _exported_and_removed(db: Executor, before: datetime, settings: Settings, bucket: str) -> Steps:
    """Write the oldest hour, then remove exactly its rows, until no hour is due."""
    while rows := db.execute(_OLDEST_HOUR, {"before": before}, repeatable=True):
        _write(rows, settings, bucket)
        # Bounds, because a list of thousands of ids would make RDS Proxy pin the connection.
        times = [row["ts"] for row in rows]
        bounds = {"first": rows[0]["id"], "last": rows[-1]["id"], "oldest": min(times), "newest": max(times)}
        yield db.execute(_DELETE, bounds)[0]["deleted"]


def _write(rows: list[Row], settings: Settings, bucket: str) -> None:
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    first, last = rows[0]["id"], rows[-1]["id"]
    name = f"{PREFIX}{rows[0]['ts']:%Y/%m/%d}/{first}-{last}"
    facts: dict[str, object] = {"table": "apk_download_events", "first_id": first, "last_id": last}
    files.write(settings, bucket, (f"{name}.jsonl.gz", f"{name}.manifest.json"), [(len(rows), lines)], facts)


# No row: no hour is due as a whole.
_OLDEST_HOUR = """
WITH oldest AS (
    SELECT date_bin('1 hour', min(ts), timestamptz '1970-01-01 00:00:00+00') AS hour FROM apk_download_events
)
SELECT id, build_id, source, token_id, device_id, admin_user, ip, ts
FROM oldest JOIN apk_download_events ON ts >= hour AND ts < hour + interval '1 hour'
WHERE hour + interval '1 hour' <= %(before)s
ORDER BY id
"""

_DELETE = """
WITH gone AS (
    DELETE FROM apk_download_events
    WHERE ts BETWEEN %(oldest)s AND %(newest)s AND id BETWEEN %(first)s AND %(last)s
    RETURNING 1
)
SELECT count(*) AS deleted FROM gone
"""
