"""Take the steps of a counterexample with the real code, count the messages, and report whether the harm occurs."""

import time
from collections import Counter

from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn

from model.spin import Step
from tests.system.dispatch.machine import posts_that_count
from tests.system.model.machine import KEPT, OK, REQUEST_ID, STATES, Machine

CLAIMS = ("claim", "repeat", "resend")
SENDABLE = ("accepted", "sending", "retry_wait", "unknown")


class Replay:
    """One counterexample on one machine.

    Attributes:
        messages: Messages that FCM accepted or may have, by what allowed them: acceptance, a resend's key, a repeat.
        late: The messages of claims made after the device had answered.
    """

    def __init__(self, machine: Machine, url: str, uncommitted: bool) -> None:
        self.machine, self.uncommitted = machine, uncommitted
        self.side = Database(make_dsn(url))
        self.messages: Counter[str] = Counter()
        self.turn, self.turns = "acceptance", {}
        self.answered, self.late, self.dropped = False, 0, False
        self.claimed_late: set[int] = set()

    def close(self) -> None:
        self.side.close()

    def take(self, steps: list[Step]) -> None:
        """Take all steps, and send the message that the last one was for."""
        for step in steps:
            self._take(step)
        last = steps[-1]
        if last.name in CLAIMS:
            self._take(last._replace(name="post", arguments=(0, last.arguments[1], OK, 0, 0)))
        if last.name in ("end_lease", "cancel"):
            for slot in list(self.machine.held):
                self._take(last._replace(name="post", arguments=(0, slot, OK, 0, 0)))

    def _take(self, step: Step) -> None:
        slot = step.arguments[1]
        if step.name in CLAIMS:
            self.machine.held.pop(slot, None)
            if step.name == "resend":
                self.turn = f"key {step.arguments[2]}"
            if step.name == "repeat" and step.before.delivery:
                self.turn = f"repeat {step.before.repeats}"
            self.turns[slot] = self.turn
            self.claimed_late -= {slot}
            self.claimed_late |= {slot} if self.answered else set()
        self.answered |= step.name == "acknowledge"
        before = posts_that_count(self.machine.fake_fcm, REQUEST_ID)
        if self.uncommitted and step.name in ("claim", "crash"):
            self._on_the_side(step)
        else:
            self.machine.run(step)
        sent = posts_that_count(self.machine.fake_fcm, REQUEST_ID) - before
        if sent:
            self.messages[self.turns[slot]] += sent
            self.late += sent if slot in self.claimed_late else 0
        self.dropped |= step.name in ("time_fcm", "drop")

    def _on_the_side(self, step: Step) -> None:
        """Keep the transaction of the claim open until its sender returns or is gone."""
        if step.name == "crash":
            self.machine.run(step)
            self.side.execute("ROLLBACK")
            return
        db, self.machine.db = self.machine.db, self.side
        try:
            self.side.execute("BEGIN")
            self.machine.run(step)
        finally:
            self.machine.db = db

    # --- the evidence, by its name in mutants.toml

    def sent_twice(self) -> bool:
        return max(self.messages.values(), default=0) > 1

    def two_messages_at_once(self) -> bool:
        return self.messages.total() > 1 and not self.dropped

    def sent_after_the_answer(self) -> bool:
        return self.late > 0

    def client_is_told_of_another_command(self) -> bool:
        """A client believes that its command was accepted, but it is lost."""
        return any(payload != self.machine.row().payload for payload in self.machine.told)

    def secret_is_kept(self) -> bool:
        row = self.machine.row()
        return row.secret == KEPT and STATES[row.state] not in SENDABLE

    def sent_without_its_secret(self) -> bool:
        posts = self.machine.fake_fcm.posts(REQUEST_ID)
        return any(post.data.get("password") != "correct horse" for post in posts)

    def token_is_lost(self) -> bool:
        """The device reported a new FCM token, but nothing can be sent to it, so its commands are lost."""
        return self.machine.row().token == 0

    def closed_while_a_sender_may_post(self) -> bool:
        """An operator sees the command as ended, and the message is sent afterwards."""
        held = [slot for slot in self.machine.held.values() if slot.claim.until > time.time()]
        row = self.machine.row()
        return bool(held) and STATES[row.state] in ("unknown", "cancelled") and self.messages.total() > 0

    def inherited(self) -> bool:
        return STATES[self.machine.row().state] in SENDABLE

    def key_is_gone_while_the_message_lives(self) -> bool:
        """A repeat of the same request would become a new command."""
        return self.machine.row().state == 0 and self.messages.total() > 0 and not self.dropped
