"""device_heartbeats made anew: partitioned, one row per device and 10 seconds, the first of each kept."""

from sqlalchemy import Connection

from migrations.adoption import catalog
from migrations.adoption.shape import Table
from migrations.adoption.steps import Step

NEW = "device_heartbeats_new"
# As nexmdm.heartbeats.partitions names and cuts them; this revision stays as it is when that changes.
WIDTH_HOURS = 6


def rebuild(db: Connection, name: str, table: Table) -> list[Step]:
    have = catalog.columns(db, name)
    instant = "ts AT TIME ZONE 'UTC'" if have["ts"].startswith("timestamp without") else "ts"
    bucket = f"date_bin('10 seconds', {instant}, timestamptz '1970-01-01 00:00:00+00')"
    bucketed = f"SELECT device_id, {bucket} AS bucket FROM {name}"
    total, kept = f"SELECT count(*) FROM {name}", f"SELECT count(*) FROM (SELECT DISTINCT * FROM ({bucketed}) b) k"
    return [
        Step(f"{name}: a partitioned table takes its place", _create(db, name, table)),
        Step(f"{name}: partitions for the rows of the last 30 days", _partitions(bucketed)),
        Step(f"{name}: the first row of each device and 10 seconds is kept", _copy(name, table, have, bucket), kept),
        Step(f"{name}: later rows of the same 10 seconds go", None, f"SELECT ({total}) - ({kept})"),
        Step(f"{name}: keys", _constraints(table)),
        Step(f"{name}: the old table goes", _replace(name)),
    ]


def _create(db: Connection, name: str, table: Table) -> str:
    """Without keys, which are made once it is full; with the old table's sequence, so that numbers go on."""
    sequence = catalog.sequence(db, name, "hb_id")
    columns = []
    for column, spec in table.columns.items():
        plain = spec.replace(" DEFAULT serial", f" DEFAULT nextval('{sequence}')")
        columns.append(f"{column} {plain if sequence else spec.replace('bigint NOT NULL DEFAULT serial', 'bigserial')}")
    create = f"CREATE TABLE {NEW} ({', '.join(columns)}) PARTITION BY {table.partitioned_by}"
    default = f"CREATE TABLE {name}_default PARTITION OF {NEW} DEFAULT"
    return ";\n".join([create, default] + ([f"ALTER SEQUENCE {sequence} OWNED BY {NEW}.hb_id"] if sequence else []))


def _partitions(bucketed: str) -> str:
    """Rows of other times are few, mostly from devices with a wrong clock; the default partition takes them."""
    return f"""
DO $$ DECLARE slot timestamptz; BEGIN
    FOR slot IN
        SELECT DISTINCT date_bin('{WIDTH_HOURS} hours', bucket, timestamptz '1970-01-01 00:00:00+00')
        FROM ({bucketed}) b WHERE bucket BETWEEN now() - interval '30 days' AND now() + interval '7 days'
    LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF {NEW} FOR VALUES FROM (%L) TO (%L)',
            'device_heartbeats_p' || to_char(slot AT TIME ZONE 'UTC', 'YYYYMMDDHH24'),
            slot, slot + interval '{WIDTH_HOURS} hours');
    END LOOP;
END $$"""


def _copy(name: str, table: Table, have: dict[str, str], bucket: str) -> str:
    values = {column: column for column in table.columns if column in have}
    if have["ts"].startswith("timestamp without"):
        values["ts"] = "ts AT TIME ZONE 'UTC'"
    values |= {
        "bucket": bucket,
        "status": "CASE WHEN status IN ('ok', 'warn', 'error') THEN status ELSE 'warn' END",
        "battery_pct": "CASE WHEN battery_pct BETWEEN 0 AND 100 THEN battery_pct END",
    }
    selected = ", ".join(f"{value} AS {column}" for column, value in values.items())
    return f"""
INSERT INTO {NEW} ({", ".join(values)})
SELECT DISTINCT ON (device_id, bucket) {", ".join(values)} FROM (SELECT {selected} FROM {name}) AS old
ORDER BY device_id, bucket, ts, hb_id"""


def _constraints(table: Table) -> str:
    return ";\n".join(f"ALTER TABLE {NEW} ADD CONSTRAINT {name} {text}" for name, text in table.constraints.items())


def _replace(name: str) -> str:
    return f"DROP TABLE {name};\nALTER TABLE {NEW} RENAME TO {name};\nANALYZE {name}"
