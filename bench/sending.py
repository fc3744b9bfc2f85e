"""Sending: the dispatch loop with its claims and records, compared with posting the same messages with the same
client."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import firebase_admin
from nexmdm.commands import batches, message
from nexmdm.commands.single import Command, Selected
from nexmdm.runtime import actor, settings
from nexmdm.runtime.database import Database

from bench import fixture
from bench.figures import Figure, at_least
from bench.pairs import interleaved, spread_of
from bench.stage import Stage, pointed_at
from functions.fcm_dispatch import fcm, sending
from local.postgres.embedded import ROOT

ROUNDS = 5
KEY = "the key that devices hold"


def measure(stage: Stage) -> list[Figure]:
    with stage.copy("sending") as url, fake_fcm() as variables, pointed_at(url, **variables):
        fixture.fill_devices_up_to(url, stage.sizes.sends)
        with fixture.connected(url) as db:
            db.execute("UPDATE devices SET fcm_token = 'fcm-' || id")
            try:
                sending.prepare()
                took = _side_by_side(stage, db)
            finally:
                _forget_service()
    floor, ours = (1000 * stage.sizes.sends / median(took[name]) for name in ("floor", "drain"))
    stage.results["sends_per_second"] = ours
    what = f"sending {stage.sizes.sends:,} commands: claim, POST, settle"
    way = f"the fake FCM, loaded by {sending.CONCURRENCY} threads of the same client"
    return [at_least(0.8, what, way, floor, ours, "/s", spread=spread_of(took["drain"], took["floor"]))]


def _side_by_side(stage: Stage, db: Database) -> dict[str, list[float]]:
    config = settings.load()
    everyone = {"filter": {"all": True}}

    def prepare(number: int) -> dict[str, Callable[[], object]]:
        command = Command(f"s-{number}", Selected(everyone), "ping", {}, 600, actor.operator("bench"))
        batches.accept(db, command, 600)
        return {
            "floor": lambda: _post(stage.sizes.sends, command),
            "drain": lambda: _drain(stage.sizes.sends, db, config, command.request_id),
        }

    return interleaved(ROUNDS, prepare, warm_up=1)


def _post(count: int, command: Command[Selected]) -> None:
    def one(number: int) -> str:
        dispatch = command.message(f"live-{number}", f"{command.request_id}:live-{number}")
        return fcm.send(fcm.message(message.build(dispatch, KEY), f"fcm-live-{number}", 240)).outcome

    with ThreadPoolExecutor(sending.CONCURRENCY) as pool:
        assert set(pool.map(one, range(count))) == {"sent"}


def _drain(count: int, db: Database, config: settings.Settings, batch_id: str) -> None:
    assert sending.drain(db, config, lambda: 600, batch_id) == count
    batch = batches.show(db, batch_id)
    assert batch
    assert batch.states == {"sent": count}, batch


@contextmanager
def fake_fcm() -> Iterator[dict[str, str]]:
    """Run the fake FCM in a separate process, with settings that name it."""
    with TemporaryDirectory(prefix="nexmdm-bench-fcm-") as folder:
        account = Path(folder) / "account.json"
        command = [sys.executable, "-m", "local.fcm", "--port", "0", "--account", str(account)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert process.stdout is not None
        try:
            url = process.stdout.readline().rpartition(" ")[2].strip()
            yield {"FCM_ENDPOINT": url, "FCM_SERVICE_ACCOUNT": account.read_text(), "COMMAND_HMAC_KEY": KEY}
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def _forget_service() -> None:
    fcm.service.cache_clear()
    for app in list(firebase_admin._apps.values()):
        firebase_admin.delete_app(app)
