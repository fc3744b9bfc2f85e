"""A device's queue of unsent items: at most 24 hours, 500 items and 10 MB; the oldest heartbeats are dropped first."""

import random
import time
from dataclasses import dataclass, field

LONGEST_AGE = 24 * 3600
MOST_ITEMS = 500
MOST_BYTES = 10 * 1024 * 1024
FIRST_PAUSE, LONGEST_PAUSE, JITTER = 2.0, 300.0, 0.25


@dataclass(eq=False)
class Item:
    """One request. `taken_at`: the device's time of a heartbeat, in seconds since 1970; otherwise None."""

    path: str
    content: bytes
    taken_at: float | None = None
    header: str = "Authorization"
    created: float = field(default_factory=time.monotonic)
    attempts: int = 0
    not_before: float = 0.0

    @property
    def is_heartbeat(self) -> bool:
        return self.taken_at is not None


class Outbox:
    def __init__(self) -> None:
        self._items: list[Item] = []

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> list[Item]:
        """Add an item; return the items that had to be dropped for it."""
        self._items.append(item)
        return self._trim()

    def coalesce(self, bucket_seconds: int) -> None:
        """Drop the waiting heartbeats of the last item's bucket: the existing agent queues one per bucket."""
        *earlier, last = self._items
        bucket = _bucket(last, bucket_seconds)
        kept = [item for item in earlier if not (item.is_heartbeat and _bucket(item, bucket_seconds) == bucket)]
        self._items = [*kept, last]

    def remove(self, item: Item) -> None:
        if item in self._items:
            self._items.remove(item)

    def clear(self) -> None:
        self._items.clear()

    def due(self) -> Item | None:
        """The oldest item that may be tried now."""
        now = time.monotonic()
        return next((item for item in self._items if item.not_before <= now), None)

    def all(self) -> list[Item]:
        return list(self._items)

    def due_heartbeats(self, count: int) -> list[Item]:
        now = time.monotonic()
        return [item for item in self._items if item.is_heartbeat and item.not_before <= now][:count]

    def next_due(self) -> float | None:
        """Seconds until an item may be tried; None if none is waiting."""
        return max(0.0, min(item.not_before for item in self._items) - time.monotonic()) if self._items else None

    def all_due(self) -> None:
        """Make all items due, because the network is back."""
        for item in self._items:
            item.not_before = 0.0

    def age(self, seconds: float) -> None:
        """Make waiting items older by the elapsed time."""
        for item in self._items:
            item.created -= seconds
            item.not_before -= seconds

    def _trim(self) -> list[Item]:
        oldest = time.monotonic() - LONGEST_AGE
        dropped = [item for item in self._items if item.created < oldest]
        self._items = [item for item in self._items if item.created >= oldest]
        size = sum(len(item.content) for item in self._items)
        while len(self._items) > MOST_ITEMS or size > MOST_BYTES:
            victim = next((item for item in self._items if item.is_heartbeat), self._items[0])
            self._items.remove(victim)
            size -= len(victim.content)
            dropped.append(victim)
        return dropped


def _bucket(item: Item, seconds: int) -> int:
    return int((item.taken_at or 0) // seconds)


def pause(attempts: int, rng: random.Random) -> float:
    """Seconds until the next attempt after `attempts` failed ones: 2 s × 2^n up to 300 s, plus 0 to 25 %."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 10)) * (1 + rng.uniform(0, JITTER))
