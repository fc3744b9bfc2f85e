"""Concurrent clients with a faulty connection and a misbehaving FCM: the history that they saw must keep the promises.
The checker must also be able to reject one."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from nexmdm.runtime.database import Database

from tests.support.api import call
from tests.support.claims import SCALE, Claim
from tests.support.commands import enrolled
from tests.system.torture.clients import DEVICES, USES, Clients, stored, troubled
from tests.system.torture.history import Operation, Stored, check, reachable
from tests.system.torture.stack import standing

pytestmark = pytest.mark.long

THREADS, OPERATIONS = 6, 200


@pytest.mark.parametrize("seed", range(max(1, SCALE // 2)))
def test_history_of_concurrent_clients_keeps_the_promises(url: str, db: Database, claim: Claim, seed: int):
    devices = [enrolled(f"device-{n}", f"fcm:{n}") for n in range(DEVICES)]
    body = {"aliases": [f"token-{n}" for n in range(6)], "uses_allowed": USES}
    tokens = {item["token_id"]: item["token"] for item in call("POST", "/v1/enroll-tokens", body).json["items"]}
    with standing(url, 3, "--every", "fcm_dispatch=0.5", BULK_INLINE_SECONDS="1") as stack:
        stack.fake_fcm.misbehave = 0.3
        clients = Clients(stack, devices, tokens, commands=40)
        with troubled(stack, db, seed) as troubles:
            clients.run(THREADS, OPERATIONS, seed)
        wrong = check(clients.history, stored(stack, [device_id for device_id, _ in devices]))
        with stack.operator() as operator:
            audit = operator.get("/v1/audit/commands").json()
    assert wrong == []
    assert audit["checked"] > 0
    assert (audit["violations"], audit["first"]) == (0, None)
    assert {status for _, status in clients.statuses if status >= 500} <= {503}, clients.statuses
    # Only a used-up token is refused; a fault never looks like an invalid token.
    assert {kind for kind, status in clients.statuses if status in (401, 403)} <= {"register"}, clients.statuses
    outcomes = Counter(operation.outcome for operation in clients.history)
    assert outcomes["ok"] > len(clients.history) / 2, outcomes
    seen = ", ".join(f"{count} {name}" for name, count in (outcomes + troubles).items())
    claim("the history of clients keeps the promises", f"operations ({seen})", len(clients.history))


# --- the checker rejects bad histories


def answer(state: str, **changes: Any) -> dict[str, Any]:
    fixed = {"request_id": "r", "device_id": "d", "action": "ping", "params": {}, "created_at": "1", "expires_at": "2"}
    return {**fixed, "created_by": "me", "state": state, "result": None, **changes}


GOOD = [
    Operation("heartbeat", ("d", 10), 1, 2, "ok"),
    Operation("heartbeat", ("d", 20), 1, 2, "unknown"),
    Operation("heartbeat", ("d", 30), 1, 2, "failed"),
    Operation("command", "r", 1, 2, "ok", answer("retry_wait"), {"device_id": "d"}),
    Operation("command", "r", 3, 4, "ok", answer("sent"), {"device_id": "d"}),
    Operation("ack", "r", 5, 6, "ok", {"ok": True}, {"result": "OK"}),
    Operation("show", "r", 7, 8, "ok", answer("sent", result="OK")),
    Operation("register", "t", 1, 2, "ok", {"device_id": "new"}),
]
HELD = Stored(
    heartbeats=[("d", 10), ("d", 20)],
    commands={"r": answer("sent", result="OK")},
    tokens={"t": (2, 1)},
    devices={"new": "t"},
    posts=Counter(r=1),
    accepted=Counter(r=1),
)


def told(n: int, **changes: Any) -> list[Operation]:
    return [*GOOD[:n], replace(GOOD[n], **changes), *GOOD[n + 1 :]]


def row(**changes: Any) -> Stored:
    return replace(HELD, commands={"r": answer("sent", **{"result": "OK", **changes})})


BAD: dict[str, tuple[list[Operation], Stored]] = {
    "acknowledged and not stored": (GOOD, replace(HELD, heartbeats=[("d", 20)])),
    "stored, but never sent": (GOOD, replace(HELD, heartbeats=[*HELD.heartbeats, ("d", 30)])),
    "2 rows for one bucket": (GOOD, replace(HELD, heartbeats=[*HELD.heartbeats, ("d", 20)])),
    "r: acknowledged and not stored": (GOOD, replace(HELD, commands={})),
    "action was 'ping' and is 'wake'": (GOOD, row(action="wake")),
    "expires_at was '3'": (told(4, value=answer("sent", expires_at="3")), HELD),
    "no request named x": (GOOD, row(device_id="x")),
    "reported sent, then retry_wait": (told(4, value=answer("sent"), invoked=0, returned=0.5), HELD),
    "reported failed, but stored sent": (told(4, value=answer("failed")), HELD),
    "an acknowledgment was accepted": (GOOD, row(result=None)),
    "was never reported": (told(5, asked={"result": "FAILED"}), HELD),
    "its result was 'FAILED'": (told(6, value=answer("sent", result="FAILED")), HELD),
    "FCM accepted no message": (GOOD[:5], replace(row(result=None), accepted=Counter())),
    "2 POSTs": (GOOD, replace(HELD, posts=Counter(r=2))),
    "3 uses of 2": (GOOD, replace(HELD, tokens={"t": (2, 3)})),
    "2 devices, 1 uses": (GOOD, replace(HELD, devices={**HELD.devices, "more": "t"})),
    "which is not stored": (GOOD, replace(HELD, devices={})),
}


def test_good_history_is_accepted():
    assert check(GOOD, HELD) == []


@pytest.mark.parametrize("flaw", BAD)
def test_bad_history_is_reported(flaw: str):
    wrong = check(*BAD[flaw])
    assert any(flaw in line for line in wrong), wrong


def test_reachable_states():
    assert reachable("accepted") >= {"sending", "sent", "failed", "retry_wait", "unknown", "expired", "cancelled"}
    assert reachable("sent") == {"sent"}
    assert reachable("failed") == {"failed"}
    assert "accepted" not in reachable("sending")
