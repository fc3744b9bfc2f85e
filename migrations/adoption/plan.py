"""The steps from what the catalog shows to the one shape; none where nothing differs."""

from sqlalchemy import Connection

from migrations.adoption import catalog, columns, heartbeats, repairs
from migrations.adoption.keys import Keys
from migrations.adoption.shape import TABLES, Table
from migrations.adoption.steps import ARCHIVE, CREATE_ARCHIVE, Step

_AS_IT_IS = {"no_parameters": True}  # a % in a statement is a %


def plan(db: Connection) -> list[Step]:
    """What is to be done, in order. Only reads."""
    rebuilt = {name for name, table in TABLES.items() if _is_rebuilt(db, name, table)}
    keys = Keys(db, rebuilt)
    steps = repairs.steps(db) + keys.before()
    for name, table in TABLES.items():
        steps += _table_steps(db, name, table, keys)
    steps += keys.after() + _last_status_steps(db)
    if steps and not catalog.exists(db, ARCHIVE):
        steps.insert(0, Step(f"table {ARCHIVE} is made for what no table of ours has a column for", CREATE_ARCHIVE))
    return steps


def run(db: Connection, steps: list[Step]) -> None:
    for step in steps:
        if step.sql:
            db.exec_driver_sql(step.sql, execution_options=_AS_IT_IS)


def counted(db: Connection, step: Step) -> int | None:
    return db.exec_driver_sql(step.counted, execution_options=_AS_IT_IS).scalar_one() if step.counted else None


def _is_rebuilt(db: Connection, name: str, table: Table) -> bool:
    return catalog.exists(db, name) and catalog.partitioned_by(db, name) != table.partitioned_by


def _table_steps(db: Connection, name: str, table: Table, keys: Keys) -> list[Step]:
    if not catalog.exists(db, name):
        return [Step(f"{name}: the table is made", columns.create(name, table))]
    if _is_rebuilt(db, name, table):
        return heartbeats.rebuild(db, name, table)
    return columns.alter(db, name, table, keys)


def _last_status_steps(db: Connection) -> list[Step]:
    """The old server's device_last_status waits in the archive until e8a41f63d7c2 has made ours."""
    old = "device_last_status"
    if not catalog.exists(db, old):
        return []
    return [
        Step(
            f"{old}: its rows are carried over into ours",
            f"""INSERT INTO {ARCHIVE} SELECT '{old}', device_id, to_jsonb(old) FROM {old} old
                ON CONFLICT (table_name, row_key) DO UPDATE SET old = {ARCHIVE}.old || excluded.old""",
            f"SELECT count(*) FROM {old}",
        ),
        Step(f"{old}: the old table goes", f"DROP TABLE {old}"),
    ]
