"""Allows one run at a time: a separate connection holds a lock for the duration of the run.

The lock belongs to a transaction, because a pooler may give the session to another client afterwards. Other runs try
again in short transactions and never block on the lock: the snapshot of a blocked session would make CREATE INDEX
CONCURRENTLY, which waits for every older snapshot, hang forever.
"""

import sys
import time
from types import TracebackType

from sqlalchemy import Engine

LOCK = "pg_try_advisory_xact_lock(hashtextextended('nexmdm.migrations', 0))"
ASK_AGAIN_SECONDS = 0.2


class Guard:
    def __init__(self, engine: Engine, seconds: float) -> None:
        self._connection = engine.connect()
        self._seconds = seconds

    def __enter__(self) -> "Guard":
        deadline = time.monotonic() + self._seconds
        told = False
        while not self._taken():
            if time.monotonic() > deadline:
                self._connection.close()
                raise SystemExit(f"another migration has been running for {self._seconds:.0f} s; try again later")
            if not told:
                print("another migration is running; waiting until it ends", file=sys.stderr, flush=True)
                told = True
            time.sleep(ASK_AGAIN_SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def check(self) -> None:
        """Raise an error if the connection, and with it the lock, was lost."""
        self._connection.exec_driver_sql("SELECT 1")

    def _taken(self) -> bool:
        # The holder idles in its transaction for the whole run, without a snapshot and without a lock on any table.
        self._connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        taken = bool(self._connection.exec_driver_sql(f"SELECT {LOCK}").scalar_one())
        if not taken:
            self._connection.rollback()
        return taken
