"""Run callers at the same time, each with its own connection that was opened beforehand."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any, TypeVar

from nexmdm.runtime.database import Database, Executor
from nexmdm.runtime.errors import Unavailable
from psycopg2.extensions import make_dsn

from tests.local.processes import eventually

Result = TypeVar("Result")


def in_own_thread(act: Callable[[], Result]) -> Result:
    """Run `act` in a thread that ends with it.

    An exception that a trace function raises within an `except` block can leave the exception of that block as the
    thread's current one, for every later exception to name as its context.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(act).result()


def race(url: str, *runners: Callable[[Database], Any]) -> list[Any]:
    """Return what each runner returned or raised, in order."""
    barrier = threading.Barrier(len(runners), timeout=60)
    results: list[Any] = [None] * len(runners)

    def run(n: int) -> None:
        db = Database(make_dsn(url))
        try:
            _open(db)
            barrier.wait()
            results[n] = runners[n](db)
        except Exception as error:
            results[n] = error
        finally:
            db.close()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(runners))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _open(db: Database, seconds: float = 50) -> None:
    """Connect with several attempts: many callers on a busy machine can need longer than one attempt may take."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            db.execute("SELECT 1")
            return
        except Unavailable:
            if time.monotonic() > deadline:
                raise


def errors(results: Sequence[Any]) -> list[Any]:
    return [result for result in results if isinstance(result, BaseException)]


def meeting(
    url: str,
    first: Callable[[Executor], Any],
    second: Callable[[Database], Any],
    then: Callable[[Executor], Any] = lambda _: None,
) -> Any:
    """The result of `second`, which begins before `first` has committed and waits for it.

    The transaction of `first` goes on with `then` while `second` waits.
    """
    with ExitStack() as stack:
        one, other, eye = (stack.enter_context(closing(Database(make_dsn(url)))) for _ in range(3))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        with one.transaction() as tx:
            first(tx)
            waiting = pool.submit(second, other)
            eventually(lambda: eye.execute(_WAITING)[0]["n"] == 1)
            then(tx)
        return waiting.result()


_WAITING = """
SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def free(table: str) -> Callable[[Executor], Any]:
    """A check that raises if another transaction has locked a row of the table."""
    return lambda tx: tx.execute(f"SELECT FROM {table} FOR NO KEY UPDATE NOWAIT")
