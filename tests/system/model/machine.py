"""Take the steps of model/dispatch.pml on a real PostgreSQL with the code's own calls, and read the row in the model's
notation."""

import json
from dataclasses import dataclass

from nexmdm.commands import queue, single
from nexmdm.commands.queue import Answer, Claim, Result
from nexmdm.commands.single import Command, OneDevice, Report
from nexmdm.commands.states import Delivery
from nexmdm.retention import policies
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import Conflict, PayloadMismatch, Sending

from functions.fcm_dispatch import sending
from local.fcm import FakeFcm
from model.spin import Row, Step
from tests.support.api import OPERATOR, call

ACTOR = Actor(OPERATOR)
REQUEST_ID, ALIAS, LEASE_SECONDS = "m-1", "model", 60
STATES = (None, "accepted", "sending", "sent", "failed", "retry_wait", "unknown", "expired", "cancelled")
UNSET, COMING, PASSED = range(3)
NEVER, KEPT, WIPED = range(3)
_IDLE, _HOLDS, OK, REFUSED, GONE, LATER, SILENT = range(7)

# FCM's responses, by the fake's names, and what the sender makes of them.
KINDS = {OK: "200", REFUSED: "400", GONE: "404", LATER: "429", SILENT: "503"}
RESULTS = {
    OK: ("sent", "sent", 200),
    REFUSED: ("failed", "INVALID_ARGUMENT", 400),
    GONE: ("failed", "UNREGISTERED", 404),
    LATER: ("retry_wait", "QUOTA_EXCEEDED", 429),
    SILENT: ("unknown", "NO_ANSWER", None),
}
# Steps that change nothing in the row.
UNSEEN = {"post", "give_up", "crash", "deliver", "drop", "time_late", "snapshot"}


@dataclass
class Held:
    """A sender's state: a claim, and then FCM's response to its POST."""

    claim: Claim
    result: Result | None = None


class Machine:
    """One device and one command.

    Attributes:
        told: What clients were told about their request, by payload.
        sent: The parameters of each message that FCM accepted or may have accepted.
    """

    def __init__(self, db: Database, fake_fcm: FakeFcm) -> None:
        self.db, self.fake_fcm = db, fake_fcm
        self.reset()

    def reset(self) -> None:
        """A new device with the token 1, and no command."""
        self.db.execute("DELETE FROM fcm_dispatches")
        self.db.execute("UPDATE devices SET deleted_at = now(), fcm_token = NULL, alias = gen_random_uuid()::text")
        self.device_token = self._register()
        self.device_id = self.db.execute("SELECT id FROM devices WHERE deleted_at IS NULL")[0]["id"]
        self._new_token(1)
        call("POST", "/v1/heartbeat", {}, token=self.device_token)
        self.db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '1 day'")
        self.held: dict[int, Held] = {}
        self.told: list[int] = []
        self.saved: list[str] = []
        self.turn = 0
        self.fake_fcm.forget()

    def run(self, step: Step) -> None:
        """Take the step; the caller compares the row with the model."""
        getattr(self, f"_{step.name}")(step)

    def differs(self, step: Step) -> str | None:
        """Set the row, take the step, and describe how the row differs from the model; None if it does not."""
        self.put(step.before)
        try:
            self.run(step)
        except Exception as error:  # the reader needs to know which step it was
            return f"{step.line()}: {type(error).__name__}: {error}"
        found = self.row()
        return None if found == step.after else f"{step.line()}: the row is {found}"

    # --- statements

    def _accept(self, step: Step) -> None:
        _command, payload, until_answered, secret, _ = step.arguments
        single.accept(self.db, self._asked(payload, until_answered, secret == KEPT))
        self.told.append(payload)

    def _replay(self, step: Step) -> None:
        payload, row = step.arguments[1], step.before
        try:
            single.accept(self.db, self._asked(payload ^ row.payload, row.delivery, row.secret != NEVER))
        except (PayloadMismatch, Sending):
            return
        self.told.append(payload)

    def _claim(self, step: Step) -> None:
        slot = step.arguments[1]
        # Alternates between the handler's claim of its own command and the sweep's claim of whatever is due.
        self.turn += 1
        if self.turn % 2:
            claim = queue.claim(self.db, REQUEST_ID, LEASE_SECONDS)
        else:
            claim = next(iter(queue.claim_due(self.db, 10, LEASE_SECONDS)), None)
        self._hold(slot, claim)

    def _repeat(self, step: Step) -> None:
        self._hold(step.arguments[1], next(iter(queue.claim_due(self.db, 10, LEASE_SECONDS)), None))

    def _resend(self, step: Step) -> None:
        _command, slot, key, *_ = step.arguments
        claim = queue.claim_again(
            self.db,
            REQUEST_ID,
            lease_seconds=LEASE_SECONDS,
            ttl_seconds=600,
            actor=ACTOR,
            reason="model",
            key=f"k{key}",
        )
        self._hold(slot, claim)

    def _claim_new(self, step: Step) -> None:
        queue.claim_new(
            self.db, request_id=REQUEST_ID, device_id=self.device_id, action="ping", payload_hash="0",
            fcm_status="pending", retries=0,
        )  # fmt: skip
        claim = Claim(
            request_id=REQUEST_ID, device_id=self.device_id, action="ping", payload={}, fence=1, attempts=1,
            fcm_token=self._token(), seconds_left=600, until=2**40,
        )  # fmt: skip
        self.held[step.arguments[1]] = Held(claim)

    def _settle(self, step: Step) -> None:
        _command, slot, answer, fence, token = step.arguments
        held = self.held.get(slot)
        if held is not None and held.result is not None:
            queue.settle(self.db, [Answer(REQUEST_ID, held.claim.fence, held.result)])
            return
        outcome, status, code = RESULTS[answer]
        gone = f"t{token}" if answer == GONE else None
        result = Result(outcome=outcome, fcm_status=status, http_code=code, unregistered_token=gone)  # type: ignore[arg-type]
        queue.settle(self.db, [Answer(REQUEST_ID, fence, result)])

    def _end_lease(self, _step: Step) -> None:
        queue.end_leases(self.db)

    def _expire(self, _step: Step) -> None:
        queue.expire(self.db, ACTOR)

    _forget_secrets = _expire

    def _cancel(self, _step: Step) -> None:
        try:
            single.cancel(self.db, REQUEST_ID, ACTOR)
        except (Conflict, Sending):
            return

    def _acknowledge(self, _step: Step) -> None:
        single.acknowledge(self.db, self.device_token, Report(REQUEST_ID, "OK"))

    def _take_over(self, _step: Step) -> None:
        self.device_token = self._register()

    def _after_restore(self, _step: Step) -> None:
        queue.after_restore(self.db, ACTOR)

    def _retire(self, _step: Step) -> None:
        self._age("sent_at = now() - interval '9 days'")
        list(policies.dispatches(self.db, policies.cutoff(self.db, 2)))
        self._age("sent_at = now()")

    # --- steps that are no statements on fcm_dispatches

    def _post(self, step: Step) -> None:
        _command, slot, answer, *_ = step.arguments
        self.fake_fcm.behave("*", KINDS[answer])
        held = self.held[slot]
        held.result = sending._post(held.claim, None)

    def _give_up(self, step: Step) -> None:
        held = self.held[step.arguments[1]]
        held.claim.until = 0
        held.result = sending._post(held.claim, None)

    def _crash(self, step: Step) -> None:
        self.held.pop(step.arguments[1], None)

    def _heartbeat(self, step: Step) -> None:
        answer = call("POST", "/v1/heartbeat", {}, token=self.device_token)
        assert answer.status == 200, answer.text
        listed = [message["request_id"] for message in answer.json["pending_commands"]]
        assert listed == [REQUEST_ID] * lists(step.before), f"pending_commands is {listed}: {step.line()}"
        if step.before.fcm == PASSED:  # a minute passes
            self.db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '2 minutes'")
            self._age("fcm_expires_at = now() - interval '10 minutes'")

    def _report_token(self, step: Step) -> None:
        self._new_token(step.after.token)

    def _time_next(self, _step: Step) -> None:
        self._age("next_at = next_at - interval '1 day'")

    def _time_lease(self, _step: Step) -> None:
        self._age("lease_until = lease_until - interval '1 day'")

    def _time_over(self, _step: Step) -> None:
        self._age("expires_at = now() - interval '1 second'")

    def _time_fcm(self, _step: Step) -> None:
        self.db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '1 day'")
        self._age("fcm_expires_at = now() - interval '10 minutes'")

    def _nothing(self, _step: Step) -> None:
        """A message arrives or is dropped, or a sender's clock advances: the database sees none of this."""

    _deliver = _drop = _time_late = _nothing

    def _snapshot(self, _step: Step) -> None:
        self.saved = [row["row"] for row in self.db.execute("SELECT to_jsonb(f)::text AS row FROM fcm_dispatches f")]
        self.saved_token = self._token()

    def _restore(self, _step: Step) -> None:
        self.db.execute("DELETE FROM fcm_dispatches")
        for row in self.saved:
            insert = (
                "INSERT INTO fcm_dispatches SELECT * FROM jsonb_populate_record(NULL::fcm_dispatches, %(row)s::jsonb)"
            )
            self.db.execute(insert, {"row": row})
        self.db.execute(
            "UPDATE devices SET fcm_token = %(token)s WHERE deleted_at IS NULL", {"token": self.saved_token}
        )

    # --- the row

    def put(self, row: Row) -> None:
        """Set the command to this row of the model, regardless of how it could get there."""
        self.held = {}
        self.db.execute("DELETE FROM fcm_dispatches")
        self.db.execute(
            "UPDATE devices SET fcm_token = %(token)s WHERE deleted_at IS NULL",
            {"token": f"t{row.token}" if row.token else None},
        )
        if row.state == 0:
            return
        if not self.db.execute("SELECT FROM device_last_status WHERE device_id = %(id)s", {"id": self.device_id}):
            call("POST", "/v1/heartbeat", {}, token=self.device_token)
        seen = "2 minutes" if row.seen else "1 day"
        self.db.execute(f"UPDATE device_last_status SET last_seen_at = now() - interval '{seen}'")
        asked = self._asked(row.payload, row.delivery, row.secret != NEVER)
        keys = [f"k{key}" for key in range(8) if row.keys >> key & 1]
        entries = [{"event": "resend", "from": "unknown", "key": key} for key in keys]
        entries += [{"event": "repeat", "from": "sent"}] * row.repeats
        entries += [{"event": "restore", "from": "accepted"}] * row.restored
        entries += [{"event": "cancel", "from": "accepted"}] * (STATES[row.state] == "cancelled")
        audit = [{"by": OPERATOR, "at": "2026-01-01T00:00:00Z", **entry} for entry in entries]
        self.db.execute(_PUT, {
            **asked.columns(),
            "device_id": self.device_id,
            "state": STATES[row.state],
            "secrets": {NEVER: None, KEPT: json.dumps(asked.secrets), WIPED: "{}"}[row.secret],
            "by": OPERATOR if row.own else None,
            "fence": row.fence,
            "attempts": row.attempts,
            "refused": row.refused,
            "lease": _moment(row.lease),
            "next": _moment(row.next),
            "fcm": _moment(row.fcm, "-10 minutes"),
            "expires": "-1 second" if row.over else "10 minutes",
            "completed": "-1 second" if row.done else None,
            "result": "OK" if row.done else None,
            "fcm_status": "sent" if row.heard else "pending",
            "http_code": 200 if row.heard else None,
            "audit": json.dumps(audit),
        })  # fmt: skip

    def row(self) -> Row:
        """The command in the model's notation."""
        found = self.db.execute(_READ, {"request_id": REQUEST_ID})
        token = int((self._token() or "t0")[1:])
        if not found:
            return Row(*[0] * 19, token)
        values = {**found[0], "token": token, "state": STATES.index(found[0]["state"])}
        hashes = [
            self._asked(payload, values["delivery"], values["secret"] != NEVER).payload_hash for payload in (0, 1)
        ]
        values["payload"] = hashes.index(values["payload"]) if values["own"] else 0
        return Row(**{name: int(values[name]) for name in Row._fields})

    def _asked(self, payload: int, until_answered: int, secret: bool) -> Command:
        """The two payloads differ in what the command does."""
        action, params = "ping", {}
        if secret:
            action, params = "wifi_connect", {"ssid": "kiosk", "password": "correct horse"}
        return Command(
            request_id=REQUEST_ID,
            target=OneDevice(self.device_id),
            action=action,
            params=params,
            ttl_seconds=600 + payload,
            actor=ACTOR,
            delivery=Delivery.UNTIL_ANSWERED if until_answered else Delivery.AT_MOST_ONCE,
        )

    def _hold(self, slot: int, claim: Claim | None) -> None:
        if claim is not None:
            self.held[slot] = Held(claim)

    def _register(self) -> str:
        made = call("POST", "/v1/enroll-tokens", {"aliases": [ALIAS]}).json["items"][0]["token"]
        return call("POST", "/v1/register", {"alias": ALIAS}, headers={"x-admin-key": made}).json["device_token"]

    def _new_token(self, number: int) -> None:
        call("POST", "/v1/devices/fcm-token", {"fcm_token": f"t{number}"}, token=self.device_token)

    def _token(self) -> str | None:
        return self.db.execute("SELECT fcm_token FROM devices WHERE deleted_at IS NULL")[0]["fcm_token"]

    def _age(self, what: str) -> None:
        self.db.execute(f"UPDATE fcm_dispatches SET {what}")


def lists(row: Row) -> bool:
    """Whether a heartbeat's pending_commands includes the command: `listed` in the model."""
    waits = STATES[row.state] in ("accepted", "retry_wait", "unknown")
    return bool(row.own and not row.over and not row.done and (waits or (row.state == 3 and row.delivery)))


def _moment(when: int, passed: str = "-1 second") -> str | None:
    return {UNSET: None, COMING: "5 minutes", PASSED: passed}[when]


_PUT = """
INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, payload, secrets, created_by, state, delivery,
    fence, attempts, refused, lease_until, next_at, fcm_expires_at, expires_at, completed_at, result, fcm_status,
    http_code, audit, created_at, sent_at)
VALUES (%(request_id)s, %(device_id)s, %(action)s, %(payload_hash)s, %(payload)s::jsonb, %(secrets)s::jsonb, %(by)s,
    %(state)s, %(delivery)s, %(fence)s, %(attempts)s, %(refused)s, clock_timestamp() + %(lease)s::interval,
    clock_timestamp() + %(next)s::interval, clock_timestamp() + %(fcm)s::interval,
    clock_timestamp() + %(expires)s::interval, clock_timestamp() + %(completed)s::interval, %(result)s,
    %(fcm_status)s, %(http_code)s, %(audit)s::jsonb, now() - interval '1 hour', now() - interval '1 hour')
"""

_READ = """
SELECT f.state, mod(f.fence, 1000000) + 8 * (f.fence / 1000000) AS fence, f.attempts, f.refused,
    (SELECT count(*) FROM jsonb_array_elements(f.audit) e WHERE e ->> 'event' = 'resend') AS resends,
    (SELECT count(*) FROM jsonb_array_elements(f.audit) e WHERE e ->> 'event' = 'repeat') AS repeats,
    (SELECT coalesce(sum(1 << right(key, 1)::int), 0)
     FROM (SELECT DISTINCT e ->> 'key' AS key FROM jsonb_array_elements(f.audit) e WHERE e ? 'key') k) AS keys,
    CASE WHEN f.lease_until IS NULL THEN 0 WHEN f.lease_until > clock_timestamp() THEN 1 ELSE 2 END AS lease,
    CASE WHEN f.next_at IS NULL THEN 0 WHEN f.next_at > clock_timestamp() THEN 1 ELSE 2 END AS next,
    CASE WHEN f.fcm_expires_at IS NULL THEN 0 WHEN f.fcm_expires_at > clock_timestamp() THEN 1 ELSE 2 END AS fcm,
    CASE WHEN f.secrets IS NULL THEN 0 WHEN f.secrets <> '{}'::jsonb THEN 1 ELSE 2 END AS secret,
    f.expires_at <= clock_timestamp() AS over,
    f.completed_at IS NOT NULL AS done,
    coalesce(f.fcm_expires_at < clock_timestamp() AND f.fcm_expires_at < l.last_seen_at
        AND l.last_seen_at <= clock_timestamp() - interval '60 seconds', false) AS seen,
    f.delivery = 'until_answered' AS delivery,
    f.created_by IS NOT NULL AS own,
    f.http_code IS NOT NULL OR f.fcm_status NOT IN ('pending', 'unknown') AS heard,
    f.payload_hash AS payload,
    f.audit @> '[{"event": "restore"}]' AS restored
FROM fcm_dispatches f LEFT JOIN device_last_status l ON l.device_id = f.device_id
WHERE f.request_id = %(request_id)s
"""
