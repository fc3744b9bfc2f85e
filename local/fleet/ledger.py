"""The fleet's requests and responses, so that a run can be compared with the rows in the database."""

import math
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

KEPT_SECONDS = 24 * 3600  # buckets older than this are no longer compared: retention may take their rows
LATEST_REPORTS = 50  # per device, for `Ledger.last_visible`
Key = tuple[str, int]  # device id, start of the bucket in seconds since 1970


@dataclass(frozen=True, eq=False)
class _Heard:
    """A heartbeat. `taken`: the phone's time, at most `sent`. `answered`: infinite without a response. In seconds."""

    taken: float
    sent: float
    answered: float
    duplicate: bool

    def is_alone_among(self, others: Iterable["_Heard"]) -> bool:
        return all(other.answered < self.taken or other.sent > self.answered for other in others if other is not self)


@dataclass
class Ledger:
    """bucket_seconds: the server's HEARTBEAT_BUCKET_SECONDS. Buckets count from `since`, the first whole one, on.

    accepted, deduplicated and rejected count heartbeats (and rejected registrations); server_errors counts any request;
    unreachable counts requests without a response; latencies are those of the last heartbeats, in seconds, or of all of
    them with an unbounded deque. Messages are FCM's; `ran` counts (device id, request_id); `corrupt` downloads whose
    bytes were not the build's. `shell_executions` has the commands that parameters made a phone's shell execute;
    `refusals` counts requests that got 4xx, by (route, status).
    """

    bucket_seconds: int = 10
    started: float = field(default_factory=time.time)
    accepted: int = 0
    deduplicated: int = 0
    rejected: int = 0
    server_errors: int = 0
    unreachable: int = 0
    retries: int = 0
    dropped: int = 0
    duplicated: int = 0
    wiped: int = 0
    registered: int = 0
    messages: int = 0
    messages_refused: int = 0
    messages_repeated: int = 0
    installed: int = 0
    installations_failed: int = 0
    corrupt: int = 0
    shell_executions: list[str] = field(default_factory=list)
    refusals: Counter[tuple[str, int]] = field(default_factory=Counter)
    ran: Counter[tuple[str, str]] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def __post_init__(self) -> None:
        self.since = self.bucket(self.started) + self.bucket_seconds
        self._stored: set[Key] = set()
        self._uncertain: set[Key] = set()
        self._heard: defaultdict[str, deque[_Heard]] = defaultdict(lambda: deque(maxlen=LATEST_REPORTS))

    def bucket(self, taken_at: float) -> int:
        return int(taken_at // self.bucket_seconds) * self.bucket_seconds

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Record the response to any request of a device."""
        self.statuses[status] += 1
        if path.startswith("/v1/heartbeat"):
            self.latencies.append(seconds)
        if status >= 500:
            self.server_errors += 1
        elif status >= 400:
            self.refusals[(route(path), status)] += 1

    def heartbeat_accepted(
        self, device_id: str, taken_at: float, duplicate: bool, sent_at: float | None = None
    ) -> None:
        self.accepted += 1
        self.deduplicated += duplicate
        if sent_at is not None:
            self._heard[device_id].append(_Heard(min(taken_at, sent_at), sent_at, time.time(), duplicate))
        key = (device_id, self.bucket(taken_at))
        self._uncertain.discard(key)
        if key[1] >= self.since:
            self._stored.add(key)

    def last_visible(self, device_id: str) -> float | None:
        """When the device sent its last report that must have moved `last_seen_at`; None if there was none.

        A report of a bucket that already has a row moves it only if it is newer than the last one. That is certain
        when none of the device's other reports was under way while this one was.
        """
        heard = self._heard[device_id]
        answered = (one for one in heard if math.isfinite(one.answered))
        return max((one.sent for one in answered if not one.duplicate or one.is_alone_among(heard)), default=None)

    def heartbeat_uncertain(self, device_id: str, taken_at: float, sent_at: float | None = None) -> None:
        """Record a heartbeat without a response or with a server error, which may or may not be stored, even later."""
        if sent_at is not None:
            self._heard[device_id].append(_Heard(min(taken_at, sent_at), sent_at, float("inf"), True))
        key = (device_id, self.bucket(taken_at))
        if key[1] >= self.since and key not in self._stored:
            self._uncertain.add(key)

    @property
    def stored(self) -> set[Key]:
        """The rows that the database must have for the buckets from `since` on."""
        self._forget_old()
        return self._stored

    @property
    def uncertain(self) -> set[Key]:
        """The rows that it may have."""
        return self._uncertain

    @property
    def distinct_buckets(self) -> int:
        return len(self.stored)

    @property
    def uncertain_buckets(self) -> int:
        return len(self.uncertain)

    def percentile(self, share: float) -> float | None:
        """A percentile of the stored latencies, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None

    def _forget_old(self) -> None:
        oldest = self.bucket(time.time() - KEPT_SECONDS)
        if oldest > self.since + 3600:
            self.since = oldest
            self._stored = {key for key in self._stored if key[1] >= oldest}
            self._uncertain = {key for key in self._uncertain if key[1] >= oldest}


def route(path: str) -> str:
    """The path without its query and its ids."""
    return re.sub(r"/(\d+|[0-9a-f]{8}-[0-9a-f-]{27})(?=/|$)", "/{id}", path.partition("?")[0])
