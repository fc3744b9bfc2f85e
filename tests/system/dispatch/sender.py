"""The commands function in separate processes that can be killed, frozen and raced.

They are forked from a server that has already imported Firebase, so that a process starts in tens of milliseconds.
`deviate` adds a defect to one, to show that a suite detects it.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from nexmdm.commands import queue

from functions.fcm_dispatch import fcm, handler
from local.gateway import payload
from tests.support.api import Answer, event

SWEEP = {"source": "aws.scheduler"}
_forks = multiprocessing.get_context("forkserver")
# All but the first are imported when firebase-admin creates its asynchronous client, which is never used.
_forks.set_forkserver_preload([__name__, "httpcore", "h2.connection", "anyio", "h11"])
# That client reads every root certificate of the machine three times, which takes a quarter of a second.
NO_ROOTS = {"SSL_CERT_FILE": "", "SSL_CERT_DIR": os.devnull}


class Sender:
    """A process that handles events, one after the other.

    Args:
        events: One event, or a list of them.
        environment: Its environment variables.
        deviation: A name of DEVIATIONS.
    """

    def __init__(
        self, events: dict[str, Any] | list[dict[str, Any]], environment: dict[str, str], deviation: str | None = None
    ) -> None:
        events = events if isinstance(events, list) else [events]
        self._answers, theirs = _forks.Pipe(duplex=False)
        self._process = _forks.Process(target=_run, args=(events, environment, deviation, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL, "the process had ended before it was killed"

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def result(self) -> Any:
        """What the handler returned for the next event."""
        assert self._answers.poll(60), "the process did not return a result"
        return self._answers.recv()

    def answer(self) -> Answer:
        answer = payload.response(self.result())
        return Answer(answer.status, dict(answer.headers), answer.body.decode())


def command(device_id: str, request_id: str, action: str = "ring", **body: Any) -> dict[str, Any]:
    return event("POST", f"/v1/devices/{device_id}/commands", {"action": action, "request_id": request_id, **body})[1]


def _run(events: list[dict[str, Any]], environment: dict[str, str], deviation: str | None, answers: Connection) -> None:
    os.environ.update(NO_ROOTS | environment)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  discards the log
    if deviation:
        DEVIATIONS[deviation]()
    context = SimpleNamespace(aws_request_id="0", function_name="sender", get_remaining_time_in_millis=lambda: 60_000)
    for each in events:
        answers.send(handler.handler(each, context))


def _send_again_after_the_lease() -> None:
    queue._END_LEASES = """
        UPDATE fcm_dispatches f SET state = 'retry_wait', next_at = clock_timestamp(), lease_until = NULL
        WHERE state = 'sending' AND lease_until < clock_timestamp() RETURNING request_id, state"""


def _call_503_not_accepted() -> None:
    refused = fcm._refused

    def deviating(response: Any) -> queue.Result:
        result = refused(response)
        result.outcome = "retry_wait" if response.status_code == 503 else result.outcome
        return result

    fcm._refused = deviating


DEVIATIONS: dict[str, Callable[[], None]] = {
    "lease expired: send again": _send_again_after_the_lease,
    "503: send again": _call_503_not_accepted,
}
