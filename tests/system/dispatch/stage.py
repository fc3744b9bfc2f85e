"""A database, a fake FCM and relays in front of both: everything that a sending process connects to."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn

from local.fcm import FakeFcm, running
from local.fcm.account import service_account
from tests.support.commands import enrolled
from tests.support.fcm import HMAC_KEY
from tests.system.dispatch import machine
from tests.system.dispatch.lines import Exchanges, Hook, Statements, Trap
from tests.system.dispatch.sender import SWEEP, Sender, command


class Job(NamedTuple):
    """A command that has not been sent to the API yet, for a device of its own."""

    request_id: str
    device_id: str
    token: str
    address: str
    event: dict[str, Any]


class Stage:
    def __init__(self, url: str, fake_fcm: FakeFcm, double_url: str) -> None:
        self.db, self.url, self.fake_fcm, self.double_url = Database(make_dsn(url)), url, fake_fcm, double_url
        self.statements, self.exchanges = Statements(url), Exchanges(double_url)
        self._numbers = itertools.count(1)
        machine.record(self.db)

    def environment(self, watched: bool = False) -> dict[str, str]:
        """The environment of a process that uses this stage; a `watched` one goes through the relays."""
        fcm = self.exchanges.url if watched else self.double_url
        return {
            "DATABASE_URL": self.statements.url if watched else self.url,
            "FCM_ENDPOINT": fcm,
            "FCM_SERVICE_ACCOUNT": service_account(fcm),
            "FCM_TIMEOUT_SECONDS": "1",
            "COMMAND_HMAC_KEY": HMAC_KEY,
        }

    def job(self, action: str = "ring", **body: Any) -> Job:
        number = next(self._numbers)
        address = f"fcm:{number}"
        device_id, token = enrolled(f"device-{number}", address)
        request_id = f"r-{number}"
        return Job(request_id, device_id, token, address, command(device_id, request_id, action, **body))

    def sender(self, event: dict[str, Any], deviation: str | None = None) -> Sender:
        return Sender(event, self.environment(), deviation)

    def sweeper(self, deviation: str | None = None) -> Sender:
        return self.sender(SWEEP, deviation)

    @contextmanager
    def held(self, event: dict[str, Any], trap: Trap, **environment: str) -> Iterator[Sender]:
        """A process behind the relays that is held in the trap; the block kills or releases it."""
        self.statements.hook = self.exchanges.hook = trap
        self.fake_fcm.on_message = lambda _record: trap("post", "arrived")
        try:
            sender = Sender(event, {**self.environment(watched=True), **environment})
            trap.wait()
            yield sender
        finally:
            trap.release(passes=False)
            self.watch(None)

    def watch(self, hook: Hook | None) -> None:
        """Set the hook that the relays call from now on."""
        self.statements.hook = self.exchanges.hook = hook or (lambda _what, _phase: True)
        self.fake_fcm.on_message = None

    def row(self, request_id: str) -> dict[str, Any] | None:
        rows = self.db.execute("SELECT * FROM fcm_dispatches WHERE request_id = %(id)s", {"id": request_id})
        return rows[0] if rows else None

    def state(self, request_id: str) -> str | None:
        row = self.row(request_id)
        return row and row["state"]

    def pass_leases(self) -> None:
        self.db.execute("UPDATE fcm_dispatches SET lease_until = now() - interval '1 s' WHERE state = 'sending'")

    def make_due(self) -> None:
        self.db.execute("UPDATE fcm_dispatches SET next_at = now() - interval '1 s' WHERE state = 'retry_wait'")

    def clear(self) -> None:
        """Check every change that the test made against the state machine, and remove its rows."""
        try:
            machine.check(self.db)
        finally:
            self.fake_fcm.forget()
            self.db.execute("TRUNCATE fcm_dispatches, command_batches, transitions")

    def close(self) -> None:
        self.statements.close()
        self.exchanges.close()
        self.db.close()


@contextmanager
def opened(url: str) -> Iterator[Stage]:
    fake_fcm = FakeFcm()
    with running(fake_fcm) as double_url:
        stage = Stage(url, fake_fcm, double_url)
        try:
            yield stage
        finally:
            stage.close()
