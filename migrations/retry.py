"""Retries a revision that does not get a lock in time, after rolling it back and letting writers proceed."""

import random
import sys
import time
from collections.abc import Callable

from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError

LOCKED = {errorcodes.LOCK_NOT_AVAILABLE, errorcodes.DEADLOCK_DETECTED}
LONGEST_PAUSE_SECONDS = 8


def until_locks_are_free(attempt: Callable[[], None], seconds: float, *, repeatable: Callable[[], bool]) -> None:
    """Run `attempt` again, after growing pauses, for as long as it fails for want of a lock.

    Args:
        seconds: how long to retry before the error is raised.
        repeatable: whether a second run completes the work of the first.
    """
    deadline = time.monotonic() + seconds
    pause = 0.25
    while True:
        try:
            return attempt()
        except DBAPIError as error:
            locked = getattr(error.orig, "pgcode", None) in LOCKED
            if not (locked and repeatable()) or time.monotonic() + pause > deadline:
                raise
        print(f"a lock could not be acquired; trying again in about {pause:.2g} s", file=sys.stderr, flush=True)
        time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (spreads retries, keeps no secret)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
