"""The data of a large fleet for operator requests: 100,000 devices, 2 M heartbeats, 1 M commands, 1 M events.

Made by INSERT .. SELECT generate_series, without triggers and foreign keys, because its creation is not measured.
Values are distributed as in a real fleet: a few devices have warnings, few commands are open, builds have an
installation per device.
"""

import msgspec
from nexmdm.devices import filters
from nexmdm.devices.filters import Filter
from nexmdm.heartbeats import partitions
from nexmdm.runtime.database import Database

from bench import fixture
from bench.selectors import LABELS
from bench.stage import Sizes

DAYS = 3
PER_BATCH = 1_000


def fill(url: str, db: Database, sizes: Sizes) -> None:
    partitions.ensure_partitions(db, fixture.settings(url, days=DAYS))
    fixture.fill_devices_up_to(url, sizes.devices)
    fixture.fill_recent(url, sizes.devices, sizes.rows, DAYS)
    numbers = {
        ":commands": sizes.commands,
        ":events": sizes.events,
        ":devices": sizes.devices,
        ":per_batch": min(PER_BATCH, sizes.commands // 10),
    }
    for n in range(1, 21):
        db.execute(_GROUP, {"name": f"group-{n}", "filter": _site(n)})
    db.execute(_MUTES, {"filter": _site(1)})
    db.execute(_SCHEDULES, {"filter": _site(1)})
    db.execute(_RUNS)
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        for statement in (LABELS, *_STATEMENTS):
            # By replacement, because with parameters each modulo operator `%` would be a placeholder.
            for name, number in numbers.items():
                statement = statement.replace(name, str(number))
            db.execute(statement)
    db.execute("VACUUM ANALYZE")
    db.execute("CHECKPOINT")


def _site(n: int) -> str:
    """The stored filter for one device in a hundred."""
    return msgspec.json.encode(filters.stored(Filter(selector=f"site=s{n}"))).decode()


_GROUP = """
INSERT INTO device_groups (name, filter, created_by, updated_by) VALUES (%(name)s, %(filter)s::jsonb, 'bench', 'bench')
"""
_MUTES = """
INSERT INTO alert_mutes (filter, until, reason, created_by)
SELECT %(filter)s::jsonb, now() + interval '1 day', 'moving', 'bench' FROM generate_series(1, 200)
"""
_SCHEDULES = """
INSERT INTO schedules (name, cron, timezone, filter, action, params, ttl_seconds, delivery, enabled, next_run_at,
    created_by)
SELECT 'schedule-' || n, '0 3 * * *', 'UTC', %(filter)s::jsonb, 'ping', '{}', 3600, 'at_most_once', true,
    now() + interval '1 day', 'bench' FROM generate_series(1, 200) AS n
"""
_RUNS = """
INSERT INTO schedule_runs (schedule_id, scheduled_for, status)
SELECT schedule_id, now() - day * interval '1 day', 'missed' FROM schedules, generate_series(1, 365) AS day
"""
_NUMBERED = "(SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM devices)"

_STATEMENTS = (
    # The values in which devices differ in their last status.
    f"""
UPDATE device_last_status l SET status = CASE WHEN n % 50 = 0 THEN 'warn' ELSE 'ok' END,
    battery_pct = n % 101, agent_version = '2.' || n % 5, unity_running = n % 20 > 0,
    last_seen_at = now() - CASE WHEN n % 25 = 0 THEN interval '2 hours' ELSE interval '1 minute' END
FROM {_NUMBERED} AS numbered WHERE numbered.id = l.device_id
""",
    "UPDATE devices SET fcm_token = 'fcm-' || id WHERE fcm_token IS NULL",
    # Nine commands in ten are from bulk commands; one in a thousand is open, one in a hundred failed.
    """
INSERT INTO command_batches (request_id, payload_hash, selector, device_count, created_by, created_at)
SELECT 'batch-' || n, md5(n::text), '{"filter": {"all": true}}', :per_batch, 'bench',
    now() - n * interval '3 minutes'
FROM generate_series(1, :commands * 9 / 10 / :per_batch) AS n
""",
    f"""
INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, sent_at, fcm_status, http_code, completed_at,
    result, state, fence, attempts, refused, expires_at, batch_id, created_by, created_at)
SELECT coalesce('batch-' || batch || ':' || d.id, 'single-' || c), d.id, 'ping', md5(c::text), at + interval '1 second',
    CASE kind WHEN 'failed' THEN 'failed' WHEN 'accepted' THEN 'pending' ELSE 'sent' END, 200,
    CASE kind WHEN 'sent' THEN at + interval '5 seconds' END, CASE kind WHEN 'sent' THEN 'OK' END, kind,
    (kind <> 'accepted')::int, (kind <> 'accepted')::int, (kind = 'failed')::int,
    CASE kind WHEN 'accepted' THEN now() + interval '1 hour' ELSE at + interval '1 hour' END,
    'batch-' || batch, 'bench', at
FROM generate_series(0, :commands - 1) AS c
CROSS JOIN LATERAL (
    SELECT CASE WHEN c % 1000 = 7 THEN 'accepted' WHEN c % 100 = 3 THEN 'failed' ELSE 'sent' END AS kind,
        CASE WHEN c < :commands * 9 / 10 / :per_batch * :per_batch THEN c / :per_batch + 1 END AS batch,
        now() - c * interval '0.18 seconds' AS at
) AS made
JOIN {_NUMBERED} AS d ON d.n = c % :devices
""",
    # For requests that cancel and resend.
    """
INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, state, fence, attempts, refused, expires_at,
    created_by)
SELECT kind || '-' || n, 'live-' || 1 + n, 'ping', md5(n::text), state, tries, tries, 0,
    now() + interval '1 day', 'bench'
FROM generate_series(0, 199) AS n, (VALUES ('open', 'accepted', 0), ('lost', 'unknown', 1)) AS kinds(kind, state, tries)
""",
    """
INSERT INTO apk_signers (package_name, fingerprint, pinned_by)
SELECT 'com.example.app' || n, repeat('ab', 32), 'bench' FROM generate_series(0, 9) AS n
""",
    """
INSERT INTO operator_events (at, actor, action, object, after)
SELECT now() - n * interval '20 seconds', 'arn:aws:iam::123456789012:user/operator-' || n % 20,
    (ARRAY['command.send', 'device.rename', 'device.label', 'build.rollout', 'group.change'])[1 + n % 5],
    'device:live-' || 1 + n % 5000, '{"to": "something"}'
FROM generate_series(:events, 1, -1) AS n
""",
    f"""
INSERT INTO enrollment_tokens (token_id, alias, token_hash, issued_by, issued_at, expires_at, status, device_id,
    uses_consumed, used_at)
SELECT 'token-' || n, id, encode(sha256(id::bytea), 'hex'), 'bench', now() - n * interval '1 second',
    now() + interval '1 day', CASE WHEN n % 10 = 0 THEN 'active' ELSE 'exhausted' END,
    CASE WHEN n % 10 > 0 THEN id END, (n % 10 > 0)::int, CASE WHEN n % 10 > 0 THEN now() END
FROM {_NUMBERED} AS d
""",
    """
INSERT INTO apk_versions (package_name, version_code, version_name, build_type, file_path, state, object_version,
    sha256, file_size, source, signer_fingerprint, uploaded_by, is_current, replaces_id)
SELECT 'com.example.app' || n % 10, n, '1.' || n, 'release', 'builds/' || n,
    CASE WHEN n <= 200 THEN 'published' ELSE 'declared' END, CASE WHEN n <= 200 THEN 'v' || n END,
    encode(sha256(n::text::bytea), 'hex'), 1000, 'ci', repeat('ab', 32), 'bench', n <= 10,
    CASE WHEN n <= 10 THEN n + 10 END
FROM generate_series(1, 240) AS n
""",
    f"""
INSERT INTO apk_installations (device_id, apk_version_id, status, initiated_at, completed_at, initiated_by)
SELECT d.id, v.id, CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END, now() - interval '1 day', now(), 'bench'
FROM {_NUMBERED} AS d CROSS JOIN (SELECT id FROM apk_versions WHERE id IN (199, 200)) AS v
""",
    f"""
INSERT INTO device_apps (device_id, package, version_name, version_code, installed)
SELECT d.id, 'com.example.app' || app, '1.' || n % 7, n % 7, true FROM {_NUMBERED} AS d, generate_series(0, 4) AS app
""",
    f"""
INSERT INTO device_alerts (device_id, condition, since, opened_at, recovered_at, notified_at, rule)
SELECT d.id, 'low_battery', now() - interval '2 days', now() - interval '2 days',
    CASE WHEN n % 50 > 0 THEN now() - interval '1 day' END, now() - interval '2 days', 'low_battery'
FROM {_NUMBERED} AS d ORDER BY n
""",
    f"""
INSERT INTO device_history (device_id, hour, reports, last_ts)
SELECT d.id, date_trunc('hour', now()) - hour * interval '1 hour', 6, now() - hour * interval '1 hour'
FROM {_NUMBERED} AS d, generate_series(80, 84) AS hour
""",
    """
INSERT INTO fleet_history
SELECT date_trunc('hour', now()) - hour * interval '1 hour', grp, 100000, 96000, 4000, 3000, 5000, 600000, 0, 2000, 0
FROM generate_series(1, 24 * 90) AS hour, (VALUES (''), ('group-1'), ('group-2')) AS groups(grp)
""",
)
