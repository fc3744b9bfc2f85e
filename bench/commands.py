"""Commands: a known request_id compared with a SELECT by primary key; 10,000 at once with an INSERT of bare rows."""

from collections.abc import Callable
from contextlib import closing
from statistics import median
from typing import Any

import psycopg2
from nexmdm.commands import batches, single
from nexmdm.commands.single import Command, OneDevice, Selected
from nexmdm.runtime import actor
from psycopg2 import extensions

from bench import fixture
from bench.figures import Figure, at_most, compared, counted
from bench.pairs import interleaved, medians_at_most, spread_of
from bench.stage import Stage, pointed_at
from tests.support import api
from tests.support.relay import relay

SELECT = "SELECT * FROM fcm_dispatches WHERE request_id = %(request_id)s"
# The columns without a default.
BARE = """
INSERT INTO fcm_dispatches (request_id, device_id, action, expires_at)
SELECT %(batch)s || ':' || id, id, 'ping', now() + interval '10 minutes' FROM devices
"""


def measure(stage: Stage) -> list[Figure]:
    stage.durable(False)
    with stage.copy("commands") as url:
        figures = [*_idempotency(stage, url), _round_trips(url)]
    with stage.copy("bulk") as url:
        figures.append(_bulk(stage, url))
    stage.durable(True)
    return figures


def _idempotency(stage: Stage, url: str) -> list[Figure]:
    known = stage.sizes.known
    commands = [
        Command(f"r-{n}", OneDevice(f"live-{n + 1}"), "ping", {}, 600, actor.operator(api.OPERATOR))
        for n in range(known)
    ]
    with fixture.connected(url) as db, closing(psycopg2.connect(url)) as floor:
        floor.autocommit = True
        for command in commands:
            single.accept(db, command)
        db.execute("ANALYZE")

        def prepare(number: int) -> dict[str, Callable[[], object]]:
            command = commands[number * 7 % known]
            handler, event = _event(command)
            return {
                "floor": lambda: _select(floor, command.request_id),
                "verb": lambda: single.accept(db, command),
                "handler": lambda: handler(event, api.CONTEXT),
            }

        took = interleaved(stage.sizes.rounds, prepare)
    what, way = "idempotency hit", "SELECT by primary key, bare psycopg2"
    bare, verb, handler = took["floor"], took["verb"], took["handler"]
    floor_ms = median(bare)
    return [
        at_most(2, f"{what} on a dispatch, verb: p50", way, floor_ms, median(verb), "ms",
                spread=spread_of(bare, verb)),
        compared(f"{what}, handler, API event in to answer out: p50", way, floor_ms, median(handler), "ms",
                 spread=spread_of(bare, handler)),
    ]  # fmt: skip


def _event(command: Command[OneDevice]) -> api.Call:
    path = f"/v1/devices/{command.target.device_id}/commands"
    return api.event("POST", path, {"action": command.action}, headers={"idempotency-key": command.request_id})


def _select(connection: extensions.connection, request_id: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(SELECT, {"request_id": request_id})
        return cursor.fetchall()


def _round_trips(url: str) -> Figure:
    command = Command("r-1", OneDevice("live-2"), "ping", {}, 600, actor.operator(api.OPERATOR))
    with relay(url) as line, pointed_at(line.url):
        for _ in range(3):
            handler, event = _event(command)
            line.sent.clear()
            answer = handler(event, api.CONTEXT)
            assert answer["headers"]["Idempotency-Replayed"] == "true", answer
        sent = list(line.sent)
    return counted("idempotency hit: messages to the server (statements = round trips)", len(sent), 1, "messages")


def _bulk(stage: Stage, url: str) -> Figure:
    """Each round makes a batch of each kind for the same devices; the tables grow equally for both."""
    with fixture.connected(url) as db, closing(psycopg2.connect(url)) as floor:
        floor.autocommit = True
        fixture.fill_devices_up_to(url, stage.sizes.bulk)
        everyone = {"filter": {"all": True}}

        def prepare(number: int) -> dict[str, Callable[[], object]]:
            command = Command(f"b-{number}", Selected(everyone), "ping", {}, 600, actor.operator("bench"))
            return {
                "floor": lambda: floor.cursor().execute(BARE, {"batch": f"bare-{number}"}),
                "bulk": lambda: batches.accept(db, command, 600),
            }

        took = interleaved(stage.sizes.bulk_rounds, prepare, warm_up=1)
    what = f"bulk accept of {stage.sizes.bulk:,} commands"
    stage.results["bulk_accept_ms"] = median(took["bulk"])
    return medians_at_most(3, what, "INSERT .. SELECT of bare rows", took["floor"], took["bulk"])
