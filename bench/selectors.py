"""The cost of a label selector with 100,000 devices: in a list, a preview and a bulk command.

A selector that uses an index and matches 1 % is compared with reading those rows by primary key; one without an index
is compared with a scan of the devices.
"""

from collections.abc import Callable

from nexmdm.commands import batches
from nexmdm.commands.single import Command, Selected
from nexmdm.devices import lists, targets
from nexmdm.devices.filters import Filter
from nexmdm.devices.lists import DEVICE_COLUMNS, DevicesQuery
from nexmdm.devices.targets import Targets
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database

from bench import fixture
from bench.figures import Figure
from bench.pairs import interleaved, medians_at_most
from bench.stage import Stage

APP = "io.unitynodes.unityapp"
BAR = 3
SELECTIVE = {"equality": "site=s7", "in": "ring in (r14,r15)", "existence": "rare"}
OTHERS = {"not equal": "site!=s7", "notin": "ring notin (r14,r15)", "missing": "!rare", "greater": "floor>98"}
ME = Actor("bench")


def measure(stage: Stage) -> list[Figure]:
    stage.durable(False)
    with stage.copy("labelled") as url, fixture.connected(url) as db:
        _fill(url, db, stage.sizes.devices)
        figures = [_selective(stage, db, name, selector) for name, selector in SELECTIVE.items()]
        figures += [_list(stage, db, name, selector) for name, selector in SELECTIVE.items()]
        figures += [_others(stage, db, name, selector) for name, selector in OTHERS.items()]
        figures.append(_bulk(stage, db))
    stage.durable(True)
    return figures


def _fill(url: str, db: Database, devices: int) -> None:
    fixture.fill_devices_up_to(url, devices)
    db.execute(LABELS)
    db.execute(_STATUS)
    db.execute("VACUUM ANALYZE devices, device_last_status")


def _rounds(stage: Stage) -> int:
    return max(10, stage.sizes.rounds // 40)


def _ids(db: Database, selector: str) -> list[str]:
    label, _, value = selector.partition("=")
    sql = "SELECT id FROM devices WHERE labels ->> %(key)s = %(value)s" if value else _IDS[label.split(" ", 1)[0]]
    return [row["id"] for row in db.execute(sql, {"key": label, "value": value})]


def _selective(stage: Stage, db: Database, name: str, selector: str) -> Figure:
    ids, filter_ = _ids(db, selector), Targets(filter=Filter(selector=selector))
    took = interleaved(
        _rounds(stage),
        lambda _: {
            "floor": lambda: db.execute(_BY_KEY, {"ids": ids}),
            "preview": lambda: targets.preview(db, filter_, 600),
        },
        warm_up=5,
    )
    what = f"preview among {stage.sizes.devices:,} devices, {name}, {len(ids):,} match: p50"
    return medians_at_most(BAR, what, "these rows by primary key", took["floor"], took["preview"])


def _list(stage: Stage, db: Database, name: str, selector: str) -> Figure:
    """A page of the largest size, compared with reading the same columns of all matching rows."""
    ids, query = _ids(db, selector), DevicesQuery(limit=500, selector=selector)
    took = interleaved(
        _rounds(stage),
        lambda _: {
            "floor": lambda: db.execute(_ROWS_BY_KEY, {"ids": ids, "interval_seconds": 600, "app_package": APP}),
            "list": lambda: lists.devices(db, query, 600, APP),
        },
        warm_up=5,
    )
    what = f"list among {stage.sizes.devices:,} devices, {name}: p50"
    return medians_at_most(BAR, what, "these rows by primary key", took["floor"], took["list"])


def _others(stage: Stage, db: Database, name: str, selector: str) -> Figure:
    everyone, some = Targets(filter=Filter(all=True)), Targets(filter=Filter(selector=selector))
    took = interleaved(
        _rounds(stage),
        lambda _: {
            "floor": lambda: targets.preview(db, everyone, 600),
            "preview": lambda: targets.preview(db, some, 600),
        },
        warm_up=2,
    )
    what = f"preview among {stage.sizes.devices:,} devices, {name}: p50"
    return medians_at_most(2, what, "preview of all of them", took["floor"], took["preview"])


def _bulk(stage: Stage, db: Database) -> Figure:
    selector = SELECTIVE["equality"]
    ids = sorted(_ids(db, selector))

    def prepare(number: int) -> dict[str, Callable[[], object]]:
        def accept(kind: str, chosen: dict[str, object]) -> Callable[[], object]:
            command = Command(f"{kind}-{number}", Selected(chosen), "ping", {}, 600, ME)
            return lambda: batches.accept(db, command, 600)

        return {
            "floor": accept("ids", {"device_ids": ids}),
            "selector": accept("f", {"filter": {"selector": selector}}),
        }

    took = interleaved(_rounds(stage), prepare, warm_up=2)
    what = f"bulk command to a selector among {stage.sizes.devices:,} devices, {len(ids):,} match: p50"
    return medians_at_most(BAR, what, "the same to these ids", took["floor"], took["selector"])


LABELS = """
UPDATE devices d SET labels = jsonb_build_object('site', 's' || n % 100, 'ring', 'r' || n % 200, 'floor', n % 100,
    'role', (ARRAY['till', 'screen', 'spare'])[1 + n % 3])
    || CASE WHEN n % 100 = 3 THEN '{"rare": ""}'::jsonb ELSE '{}' END
    || jsonb_build_object('floor', (n % 100)::text)
FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM devices) AS numbered WHERE d.id = numbered.id
"""
_STATUS = """
INSERT INTO device_last_status (device_id, last_ts, battery_pct, agent_version)
SELECT id, now(), 80, '2.0' FROM devices ON CONFLICT DO NOTHING
"""
_BY_KEY = """
SELECT d.id, d.alias FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.id = ANY (%(ids)s::text[]) AND d.deleted_at IS NULL
"""
_ROWS_BY_KEY = f"""
SELECT {DEVICE_COLUMNS} FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.id = ANY (%(ids)s::text[]) AND d.deleted_at IS NULL
"""
_IDS = {
    "ring": "SELECT id FROM devices WHERE labels ->> 'ring' IN ('r14', 'r15')",
    "rare": "SELECT id FROM devices WHERE labels ? 'rare'",
}
