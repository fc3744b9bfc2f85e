"""The state machine of one command without a database, as the oracle of the state machine's test."""

from dataclasses import dataclass, field

from tests.system.dispatch.machine import STATE_AFTER

# The HTTP code that the row keeps for each response of FCM.
CODES = {kind: int(kind) for kind in STATE_AFTER if kind.isdigit()} | {"redirect": 307}


@dataclass
class Phone:
    """A device that FCM reaches with the registration token `address`, or not at all."""

    id: str
    token: str
    address: str | None


@dataclass
class Command:
    phone: Phone
    action: str
    params: dict[str, str]
    state: str = "accepted"
    fence: int = 0
    http_code: int | None = None
    result: str | None = None
    sends_authorised: int = 1
    events: list[str] = field(default_factory=list)
    # Changed only by time: the lease has expired, the wait is over, the command has expired, the row is old.
    lease_passed: bool = False
    due: bool = True
    over: bool = False
    old: bool = False
    secrets_wiped: bool = False

    @property
    def completed(self) -> bool:
        return self.result is not None

    @property
    def waits(self) -> bool:
        return self.state in ("accepted", "retry_wait")

    @property
    def sendable(self) -> bool:
        return self.waits and self.due and not self.over and self.phone.address is not None

    @property
    def pending(self) -> bool:
        return (self.waits or self.state == "unknown") and not self.over

    @property
    def resendable(self) -> bool:
        state = self.state in ("unknown", "failed", "expired", "sent")
        return state and not self.completed and not self.lost_its_secret and self.phone.address is not None

    @property
    def lost_its_secret(self) -> bool:
        return "password" in self.params and self.secrets_wiped

    @property
    def removable(self) -> bool:
        return self.old and self.state in ("sent", "failed", "expired", "cancelled", "unknown")

    def claimed(self) -> int:
        """Claim the command; return the fence of its holder."""
        self.state, self.fence, self.http_code, self.lease_passed = "sending", self.fence + 1, None, False
        return self.fence

    def settled(self, fence: int, kind: str, address: str) -> None:
        """Record what FCM did with the message to `address`, as reported by the holder of `fence`."""
        open_ = self.state in ("sending", "unknown") or (self.state == "sent" and self.completed)
        if self.fence != fence or not open_:
            return
        self.state = "sent" if self.completed else STATE_AFTER[kind]
        self.http_code, self.due, self.lease_passed = CODES.get(kind), False, False
        self.secrets_wiped |= self.state in ("sent", "failed")
        if kind == "404" and self.phone.address == address:
            self.phone.address = None

    def acknowledged(self, word: str) -> None:
        if self.completed:
            return
        self.result, self.secrets_wiped = word, True
        if self.state not in ("failed", "cancelled"):
            self.state = "sent"

    def ended(self, state: str) -> None:
        """End the command without a send: expired or cancelled."""
        self.state, self.secrets_wiped = state, True

    def authorised_again(self) -> None:
        self.sends_authorised += 1
        self.events.append("resend")
        self.over = self.old = False
