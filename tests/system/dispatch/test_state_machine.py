"""Commands under any order of events, compared with the model. Time passes by moving the times of rows."""

from types import SimpleNamespace
from typing import Any

from hypothesis import Phase
from hypothesis import settings as run_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from nexmdm.commands import queue
from nexmdm.commands.queue import Claim, Result
from nexmdm.retention import policies
from nexmdm.runtime import settings

from functions.fcm_dispatch import sending
from local.gateway import payload
from tests.support.api import Answer, call, event
from tests.support.commands import enrolled, sweep
from tests.system.dispatch import machine
from tests.system.dispatch.model import Command, Phone
from tests.system.dispatch.stage import Stage

# All responses but silence, which takes its timeout each time, and 404 without details, which behaves like 400.
KINDS = {
    "sent": ["200"],
    "failed": ["400", "403", "404"],
    "retry_wait": ["401", "429"],
    "unknown": ["500", "502", "503", "redirect", "half", "nothing", "reset"],
}
kinds = st.sampled_from(sorted(KINDS)).flatmap(lambda state: st.sampled_from(KINDS[state]))
some = st.integers(0, 999)


class Commands(RuleBasedStateMachine):
    stage: Stage
    seen: set[tuple[str | None, str]]

    def __init__(self) -> None:
        super().__init__()
        self.db, self.fake_fcm = self.stage.db, self.stage.fake_fcm
        self.commands: dict[str, Command] = {}
        # Senders that were stopped, some with a claim only and some with FCM's response too.
        self.holders: list[tuple[str, int, Claim, tuple[str, Result] | None]] = []
        self.names = iter(range(1000))

    @initialize(first=st.lists(kinds, min_size=3, max_size=3), secrets=st.lists(st.booleans(), min_size=4, max_size=4))
    def enroll(self, first: list[str], secrets: list[bool]) -> None:
        self.stage.clear()
        self.db.execute("UPDATE devices SET deleted_at = now(), alias = gen_random_uuid()::text")
        self.phones = [Phone(*enrolled(alias, alias), alias) for alias in ("one", "two")]
        self.phones.append(Phone(*enrolled("three", None), None))
        # Several commands in several states from the start, because many rules need one.
        for n, kind in enumerate(first):
            self.submit(n=0, secret=secrets[n], in_time=True, kind=kind)
        self.submit(n=1, secret=secrets[3], in_time=False, kind="200")

    @rule(n=some, secret=st.booleans(), in_time=st.booleans(), kind=kinds)
    def submit(self, n: int, secret: bool, in_time: bool, kind: str) -> None:
        phone, name = self.phones[n % 3], f"c-{next(self.names)}"
        wifi = {"ssid": "kiosks", "password": "correct horse"}
        command = Command(phone, "wifi_connect" if secret else "ping", wifi if secret else {})
        self.commands[name] = command
        answer = self.give(name, kind, in_time)
        if in_time and command.sendable:
            self.sent(command, kind)
        assert (answer.status, answer.json["state"]) == (202, command.state)

    @precondition(lambda self: self.commands)
    @rule(n=some)
    def repeat(self, n: int) -> None:
        name, command = self.chosen(n)
        answer = self.give(name, "200")
        assert answer.status == (409 if command.state == "sending" else 200)
        if answer.status == 200:
            assert (answer.json["state"], answer.json["result"]) == (command.state, command.result)

    @precondition(lambda self: self.commands)
    @rule(n=some, other=st.sampled_from([{"action": "wake", "params": {}}, {"ttl_seconds": 601}]))
    def other_payload(self, n: int, other: dict[str, Any]) -> None:
        assert self.give(self.chosen(n)[0], "200", **other).status == 422

    @precondition(lambda self: any(not command.sendable for command in self.commands.values()))
    @rule(n=some)
    def claim_what_cannot_be_sent(self, n: int) -> None:
        assert queue.claim(self.db, self.chosen(n, lambda command: not command.sendable)[0], 90) is None
        if not any(command.sendable for command in self.commands.values()):
            assert queue.claim_due(self.db, 9, 90) == []

    @precondition(lambda self: any(command.sendable for command in self.commands.values()))
    @rule(n=some, posted=st.booleans(), kind=kinds)
    def crash(self, n: int, posted: bool, kind: str) -> None:
        """Stop a sender after its claim or after its POST."""
        name, command = self.chosen(n, lambda command: command.sendable)
        claim = queue.claim(self.db, name, 90)
        self.fake_fcm.behave("*", kind)
        answer = (kind, sending._post(claim, None)) if posted else None
        self.holders.append((name, command.claimed(), claim, answer))

    @precondition(lambda self: any(command.sendable for command in self.commands.values()))
    @rule(n=some, posted=st.booleans(), kind=kinds, back=st.booleans())
    def be_given_up(self, n: int, posted: bool, kind: str, back: bool) -> None:
        """Stop a sender, let its lease expire and a sweep run, and then perhaps resume it."""
        self.crash(n, posted, kind)
        self.leases_pass()
        self.sweep(kind)
        if back:
            self.come_back(len(self.holders) - 1, kind)

    @precondition(lambda self: self.holders)
    @rule(n=some, kind=kinds)
    def come_back(self, n: int, kind: str) -> None:
        """Resume a sender that was frozen, for however long."""
        name, fence, claim, answer = self.holders.pop(n % len(self.holders))
        command, address = self.commands.get(name), claim.fcm_token
        self.fake_fcm.behave("*", kind)
        if answer:
            kind = answer[0]
            sending._settle(self.db, [(claim, answer[1])])
        else:
            sending.send(self.db, claim, settings.load())
        if command:
            command.settled(fence, kind, address)

    @rule()
    def leases_pass(self) -> None:
        self.stage.pass_leases()
        for command in self.commands.values():
            command.lease_passed = command.state == "sending"

    @rule()
    def waits_are_over(self) -> None:
        self.stage.make_due()
        for command in self.commands.values():
            command.due = True

    @precondition(lambda self: self.commands)
    @rule(n=some)
    def a_life_ends(self, n: int) -> None:
        name, command = self.chosen(n)
        self.age(name, "expires_at = now() - interval '1 s'")
        command.over = True

    @precondition(lambda self: any(command.waits for command in self.commands.values()))
    @rule(n=some, answered=st.booleans())
    def expire(self, n: int, answered: bool) -> None:
        name, command = self.chosen(n, lambda command: command.waits)
        self.age(name, "expires_at = now() - interval '1 s'")
        command.over = True
        self.sweep("200")
        if answered:
            self.acknowledge(name, "OK")

    @rule(kind=kinds)
    def sweep(self, kind: str) -> None:
        self.fake_fcm.behave("*", kind)
        report = sweep()
        passed = [c for c in self.commands.values() if c.state == "sending" and c.lease_passed]
        for command in passed:
            command.state, command.lease_passed = "unknown", False
        over = [c for c in self.commands.values() if c.waits and c.over]
        for command in over:
            command.ended("expired")
        due = [c for c in self.commands.values() if c.sendable]
        for address, command in [(command.phone.address, command) for command in due]:
            self.sent(command, kind, address)
        counted = {name: report[name] for name in ("unknown", "expired", "sent")}
        assert counted == {"unknown": len(passed), "expired": len(over), "sent": len(due)}

    @precondition(lambda self: self.commands)
    @rule(n=some, word=st.sampled_from(["OK", "ERROR"]))
    def ack(self, n: int, word: str) -> None:
        self.acknowledge(self.chosen(n)[0], word)

    def acknowledge(self, name: str, word: str) -> None:
        command = self.commands[name]
        body = {"request_id": name, "type": "PING_ACK", "status": word}
        answer = call("POST", f"/v1/devices/{command.phone.id}/ack", body, token=command.phone.token)
        assert answer.status == 200
        command.acknowledged(word)

    @precondition(lambda self: self.commands)
    @rule(n=some, kind=kinds)
    def resend(self, n: int, kind: str) -> None:
        # Usually a command that can be resent; the others must be refused with the reason.
        fitting = any(command.resendable for command in self.commands.values()) and n % 4
        self.resent(self.chosen(n, lambda command: command.resendable or not fitting)[0], kind)

    def resent(self, name: str, kind: str) -> Answer:
        command = self.commands[name]
        self.fake_fcm.behave("*", kind)
        answer = call("POST", f"/v1/commands/{name}/resend", {"reason": "the model says so"})
        assert answer.status == (202 if command.resendable else 409)
        if answer.status == 202:
            command.authorised_again()
            self.sent(command, kind)
            assert answer.json["state"] == command.state
        return answer

    @precondition(lambda self: self.commands)
    @rule(n=some)
    def cancel(self, n: int) -> None:
        name, command = self.chosen(n)
        answer = call("POST", f"/v1/commands/{name}/cancel")
        possible = command.waits or command.state == "unknown"
        assert answer.status == (200 if possible or command.state == "cancelled" else 409)
        if possible:
            command.ended("cancelled")
            command.events.append("cancel")

    @rule(n=some)
    def new_address(self, n: int) -> None:
        phone = self.phones[n % 3]
        phone.address = f"fcm:{n}"
        call("POST", "/v1/devices/fcm-token", {"fcm_token": phone.address}, token=phone.token)

    @rule(n=some)
    def heartbeat(self, n: int) -> None:
        phone = self.phones[n % 3]
        listed = call("POST", "/v1/heartbeat", {}, token=phone.token).json["pending_commands"]
        pending = {name for name, command in self.commands.items() if command.phone is phone and command.pending}
        assert {message["request_id"] for message in listed} == pending

    @precondition(lambda self: self.commands)
    @rule(n=some, fcm_too=st.booleans())
    def days_pass(self, n: int, fcm_too: bool) -> None:
        """Let days pass for one command; unless `fcm_too` is set, FCM may still deliver its message."""
        name, command = self.chosen(n)
        ago = "now() - interval '3 days'"
        self.age(name, f"sent_at = {ago}, created_at = {ago}, expires_at = {ago}")
        if fcm_too:
            self.age(name, "fcm_expires_at = fcm_expires_at - interval '3 days'")
        command.over, command.old = True, command.old or fcm_too or not command.fence
        removed = sum(policies.dispatches(self.db, policies.cutoff(self.db, 2)))
        gone = [name for name, command in self.commands.items() if command.removable]
        assert removed == len(gone)
        for name in gone:
            del self.commands[name]

    @invariant()
    def the_rows_are_what_the_model_says(self) -> None:
        self.seen |= machine.check(self.db)
        rows = {row["request_id"]: row for row in self.db.execute("SELECT * FROM fcm_dispatches")}
        assert rows.keys() == self.commands.keys()
        for name, command in self.commands.items():
            row = rows[name]
            for column in ("state", "fence", "http_code", "result"):
                assert row[column] == getattr(command, column), (column, name, command, row)
            assert (row["completed_at"] is not None) == command.completed
            assert (row["secrets"] == {}) == command.lost_its_secret
            assert [entry["event"] for entry in row["audit"]] == command.events
            assert machine.posts_that_count(self.fake_fcm, name) <= command.sends_authorised

    def give(self, name: str, kind: str, in_time: bool = True, **other: Any) -> Answer:
        command = self.commands[name]
        self.fake_fcm.behave("*", kind)
        body = {"request_id": name, "action": command.action, "params": command.params, **other}
        handler, sent = event("POST", f"/v1/devices/{command.phone.id}/commands", body)
        left = lambda: 60_000 if in_time else 100  # noqa: E731
        context = SimpleNamespace(aws_request_id="0", function_name="model", get_remaining_time_in_millis=left)
        answer = payload.response(handler(sent, context))
        return Answer(answer.status, dict(answer.headers), answer.body.decode())

    def sent(self, command: Command, kind: str, address: str | None = None) -> None:
        command.settled(command.claimed(), kind, address or command.phone.address)

    def chosen(self, n: int, fits: Any = lambda _: True) -> tuple[str, Command]:
        fitting = [(name, command) for name, command in self.commands.items() if fits(command)]
        return fitting[n % len(fitting)]

    def age(self, name: str, what: str) -> None:
        self.db.execute(f"UPDATE fcm_dispatches SET {what} WHERE request_id = %(id)s", {"id": name})


def test_state_machine_matches_the_model_under_any_order_of_events(here: Stage):
    run = type("CommandsHere", (Commands,), {"stage": here, "seen": set()})
    cover_rare_transitions(run())
    # Shrinking is off: it takes minutes, and sixty steps are readable.
    phases = (Phase.explicit, Phase.generate)
    run_state_machine_as_test(run, settings=run_settings(max_examples=50, stateful_step_count=60, phases=phases))
    # The run must have taken every transition that the state machine has.
    assert machine.TRANSITIONS - run.seen <= {(None, "sending"), ("unknown", "unknown")}


def cover_rare_transitions(commands: Commands) -> None:
    """Cover transitions that chance may miss: a late holder brings each response; a command is answered before it was
    sent, after it, while it waits for a retry, and when it has expired; an expired one is resent, and an
    unknown one cancelled."""
    commands.enroll(["429", "503", "400"], [False] * 4)
    for kind in ("200", "400", "429"):
        commands.be_given_up(0, posted=True, kind=kind, back=True)
        commands.submit(n=1, secret=False, in_time=False, kind="200")
    commands.acknowledge(commands.chosen(0, lambda command: command.state == "accepted")[0], "OK")
    commands.the_rows_are_what_the_model_says()
    commands.submit(n=1, secret=False, in_time=True, kind="200")
    commands.acknowledge(list(commands.commands)[-1], "OK")
    commands.submit(n=1, secret=False, in_time=True, kind="429")
    commands.acknowledge(list(commands.commands)[-1], "OK")
    commands.submit(n=1, secret=False, in_time=False, kind="200")
    commands.be_given_up(0, posted=True, kind="200", back=False)
    commands.cancel([command.state for command in commands.commands.values()].index("unknown"))
    commands.the_rows_are_what_the_model_says()
    commands.submit(n=1, secret=False, in_time=False, kind="200")
    commands.expire(0, answered=True)
    commands.expire(0, answered=False)
    (expired,) = [name for name, command in commands.commands.items() if command.state == "expired"]
    assert commands.resent(expired, "200").status == 202
    commands.the_rows_are_what_the_model_says()
