"""HTTP routes that control the fake, for other processes.

PUT /control/behaviours/{token}  [{kind, delivered?, retry_after?, times?}, ..]; token `*` means all others
DELETE /control                  forget behaviours, requests and deliveries
GET /control/requests?after=N    received requests: number, at, token, message, outcome, delivered, answered_at
GET /control/messages?after=N&wait=S   messages that devices received; waits up to S seconds for the first one
PUT /control/misbehave           {share}: random faults from now on
"""

import asyncio
import json
import time
from dataclasses import asdict
from urllib.parse import parse_qsl, unquote, urlsplit

from local.fcm.behaviours import Behaviour, Reply, json_reply
from local.fcm.fake import FakeFcm

LONGEST_WAIT = 60


async def answer(fake_fcm: FakeFcm, method: str, target: str, body: bytes) -> Reply | None:
    """The response; None if this is not a control route."""
    address = urlsplit(target)
    query = dict(parse_qsl(address.query))
    try:
        if method == "GET" and address.path == "/control/messages":
            return await _messages(fake_fcm, int(query.get("after", 0)), float(query.get("wait", 0)))
        return _at_once(fake_fcm, method, address.path, query, body)
    except (ValueError, TypeError, KeyError) as error:
        return json_reply(400, {"error": str(error)})


def _at_once(fake_fcm: FakeFcm, method: str, path: str, query: dict[str, str], body: bytes) -> Reply | None:
    done = json_reply(200, {"ok": True})
    match method, path:
        case "PUT", "/control/misbehave":
            fake_fcm.misbehave = float(json.loads(body)["share"])
            return done
        case "PUT", _ if path.startswith("/control/behaviours/"):
            token = unquote(path.removeprefix("/control/behaviours/"))
            fake_fcm.behave(token, *[Behaviour(**entry) for entry in json.loads(body)])
            return done
        case "DELETE", "/control":
            fake_fcm.forget()
            return done
        case "GET", "/control/requests":
            records = fake_fcm.requests(int(query.get("after", 0)))
            return json_reply(200, {"requests": [{**asdict(r), "headers": None} for r in records]})
    return None


async def _messages(fake_fcm: FakeFcm, after: int, wait: float) -> Reply:
    deadline = time.monotonic() + min(wait, LONGEST_WAIT)
    while not (found := fake_fcm.deliveries(after)) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return json_reply(200, {"messages": [asdict(delivery) for delivery in found]})
