"""Rows that the constraints of the revisions after this one would refuse."""

import re

from sqlalchemy import Connection, text

from migrations.adoption import catalog
from migrations.adoption.shape import TABLES
from migrations.adoption.steps import ARCHIVE, Step, keep

SHA256 = "'^[0-9a-f]{64}$'"


def steps(db: Connection) -> list[Step]:
    """Those that have something to do."""
    found = [repair for table, make in _REPAIRS if catalog.exists(db, table) for repair in make(db)]
    found += _orphans(db)
    return [step for step in found if step.counted is None or db.execute(text(step.counted)).scalar_one()]


def _devices(db: Connection) -> list[Step]:
    columns = catalog.columns(db, "devices")
    seen = "last_seen" if "last_seen" in columns else "created_at"
    mended = "left(coalesce(nullif(alias, ''), id), 200)"
    # The most recently seen device keeps the alias; the id makes the others' unlike any other.
    doubled = f"""
        SELECT id, alias, left(alias, 199 - length(id)) || '-' || id AS unlike FROM (
            SELECT id, alias, row_number() OVER (PARTITION BY {mended} ORDER BY {seen} DESC NULLS LAST, id) AS place
            FROM devices) AS ranked
        WHERE place > 1"""
    odd = f"SELECT id, alias, {mended} AS unlike FROM devices WHERE alias = '' OR length(alias) > 200"
    found = [
        Step(
            "devices: an alias that several have stays with the one seen last, the others' get their id as a suffix",
            _realias(doubled),
            _count(doubled),
        ),
        Step("devices: an alias that is empty or longer than 200 is mended", _realias(odd), _count(odd)),
    ]
    if "token_hash" in columns:
        lost = "SELECT FROM devices WHERE token_id IS NULL"
        what = "devices: known by a bcrypt hash only, which is not kept; they enroll again (to avoid it, let each"
        found.append(Step(f"{what} reach the old server once before)", None, _count(lost)))
    if "token_revoked_at" in columns:
        revoked = "SELECT FROM devices WHERE token_revoked_at IS NOT NULL"
        found.append(Step("devices: the old server revoked their token; they count as deleted", None, _count(revoked)))
    return found


def _realias(chosen: str) -> str:
    kept = keep("devices", "id", "jsonb_build_object('alias', alias)", f"({chosen}) AS chosen")
    return f"{kept};\nUPDATE devices SET alias = unlike FROM ({chosen}) AS chosen WHERE chosen.id = devices.id"


def _enrollment_tokens(db: Connection) -> list[Step]:
    def update(what: str, assignment: str, where: str) -> Step:
        return Step(
            f"enrollment_tokens: {what}",
            f"UPDATE enrollment_tokens SET {assignment} WHERE {where}",
            f"SELECT count(*) FROM enrollment_tokens WHERE {where}",
        )

    found = [
        update(
            "the bcrypt hash gives way to the SHA-256 that token_id holds; the tokens stay valid",
            "token_hash = token_id",
            f"token_hash !~ {SHA256} AND token_id ~ {SHA256}",
        ),
        update(
            "known by a bcrypt hash only: revoked",
            "token_hash = encode(sha256(token_hash::bytea), 'hex'), status = 'revoked'",
            f"token_hash !~ {SHA256} AND token_id !~ {SHA256}",
        ),
        update(
            "an unknown status becomes revoked, or active when only the time was over",
            "status = CASE WHEN status = 'expired' THEN 'active' ELSE 'revoked' END",
            "status NOT IN ('active', 'exhausted', 'revoked')",
        ),
        update(
            "used more often than allowed: allowed is raised to it",
            "uses_consumed = greatest(uses_consumed, 0), uses_allowed = greatest(uses_allowed, uses_consumed, 0)",
            "uses_consumed NOT BETWEEN 0 AND uses_allowed",
        ),
    ]
    if "scope" in catalog.columns(db, "enrollment_tokens"):
        known = "('register', 'apk_download')"
        found.append(
            update("an unknown scope: revoked", "scope = 'register', status = 'revoked'", f"scope NOT IN {known}")
        )
    return found


def _downloads(db: Connection) -> list[Step]:
    odd = "apk_download_events WHERE source NOT IN ('enrollment', 'manual', 'ci')"
    key = "event_id" if "event_id" in catalog.columns(db, "apk_download_events") else "id"
    kept = keep("apk_download_events", key, "jsonb_build_object('source', source)", odd)
    manual = f"UPDATE apk_download_events SET source = 'manual' WHERE {odd.partition(' WHERE ')[2]}"
    # `scope` is there from a43a2b52588a on, before this revision.
    nameless = """
        SELECT token_id, min(ts) AS first, max(ts) AS last FROM apk_download_events e
        WHERE token_id IS NOT NULL AND NOT EXISTS (SELECT FROM enrollment_tokens t WHERE t.token_id = e.token_id)
        GROUP BY token_id"""
    stand_in = f"""
        INSERT INTO enrollment_tokens
            (token_id, alias, token_hash, scope, issued_at, expires_at, uses_allowed, uses_consumed, status, note)
        SELECT token_id, '(removed)', encode(sha256(convert_to('removed ' || token_id, 'UTF8')), 'hex'),
            'apk_download', first, last, 1, 1, 'revoked', 'stands in for a token that the old server removed'
        FROM ({nameless}) AS gone"""
    return [
        Step(
            "apk_download_events: an unknown source becomes manual",
            f"{kept};\n{manual}",
            f"SELECT count(*) FROM {odd}",
        ),
        Step(
            "enrollment_tokens: a revoked row stands in for each removed token that a download names",
            stand_in,
            _count(nameless),
        ),
    ]


def _orphans(db: Connection) -> list[Step]:
    """Rows that a foreign key would have forbidden, where the old database had lost it."""
    found = []
    for name, table in TABLES.items():
        for definition in table.constraints.values():
            foreign = re.fullmatch(r"FOREIGN KEY \((\w+)\) REFERENCES (\w+)\((\w+)\)", definition)
            if not foreign or not catalog.exists(db, name) or not catalog.exists(db, foreign[2]):
                continue
            column, parent, of_parent = foreign.groups()
            missing = f"NOT EXISTS (SELECT FROM {parent} p WHERE p.{of_parent} = orphan.{column})"
            orphans = f"{name} AS orphan WHERE {missing}"
            what, statements = f"{name}: rows without their row in {parent} go", [f"DELETE FROM {orphans}"]
            if name != "device_heartbeats":  # days of them, and no one's
                key = next((old for old in table.renamed if old in catalog.columns(db, name)), table.key)
                statements.insert(0, keep(name, f"orphan.{key}", "to_jsonb(orphan)", orphans))
                what += f", kept in {ARCHIVE}"
            found.append(Step(what, ";\n".join(statements), f"SELECT count(*) FROM {orphans}"))
    return found


def _count(rows: str) -> str:
    return f"SELECT count(*) FROM ({rows}) AS counted"


_REPAIRS = (
    ("devices", _devices),
    ("enrollment_tokens", _enrollment_tokens),
    ("apk_download_events", _downloads),
)
