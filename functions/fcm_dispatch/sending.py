"""The loop of claiming, sending and settling, shared by single commands, bulk commands and the sweep.

No transaction is open during a POST: claims are committed before it and settled after it, by the thread that owns the
database connection. Worker threads only call FCM.
"""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from nexmdm.commands import message
from nexmdm.commands.queue import Answer, Claim, Result, claim_due, settle
from nexmdm.runtime import logs, secrets, settings
from nexmdm.runtime.database import Executor
from nexmdm.runtime.errors import Unavailable
from nexmdm.runtime.settings import Settings

CONCURRENCY = 32
CLAIM_AT_LEAST = 8


def send_budget_seconds(config: Settings) -> float:
    """The time that must remain before a send is started: for connecting, reading and settling."""
    return 2 * config.fcm_timeout_seconds + 2


def prepare() -> None:
    """Load Firebase, its credentials and the HMAC key before anything is claimed, to save the lease for sending.

    Raises:
        SettingsError: there is no usable service account. Nothing was claimed.
    """
    from functions.fcm_dispatch import fcm

    _hmac_key(settings.load())
    fcm.service()
    fcm.drop_idle_connections()


def send(db: Executor, claim: Claim, config: Settings) -> str | None:
    """Send a claimed command and settle it; return the new state, or None if the fence was lost in the meantime."""
    return _settle(db, [(claim, _post(claim, _hmac_key(config)))])[0]


def drain(db: Executor, config: Settings, remaining_seconds: Callable[[], float], batch_id: str | None = None) -> int:
    """Claim and send due commands, `CONCURRENCY` at a time, while time remains; return how many were sent.

    Raises:
        Unavailable: the database failed. All running POSTs have finished, and were settled as far as possible.
    """
    key, budget, sent, outage = _hmac_key(config), send_budget_seconds(config), 0, None
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        flying: dict[Future[Result], Claim] = {}
        answered: list[tuple[Claim, Result]] = []
        more = True
        while more or flying:
            left = remaining_seconds()
            more = more and outage is None and left > budget
            # If there is time for two rounds, the next commands are queued while results are recorded.
            free = (2 * CONCURRENCY if left > 2 * budget else CONCURRENCY) - len(flying)
            try:
                # Claims several at a time, because a claim per free worker would be a commit per message.
                if more and free >= CLAIM_AT_LEAST:
                    claims = claim_due(db, free, config.dispatch_lease_seconds, batch_id)
                    flying |= {pool.submit(_post, claim, key): claim for claim in claims}
                    more = bool(claims)
                answered += [(flying.pop(f), f.result()) for f in wait(flying, return_when=FIRST_COMPLETED).done]
                sent += sum(state is not None for state in _settle(db, answered))
                answered.clear()
            except Unavailable as error:
                outage = error
    if outage:
        _settle(db, answered)
        raise outage
    return sent


def _settle(db: Executor, answered: list[tuple[Claim, Result]]) -> list[str | None]:
    return settle(db, [Answer(claim.request_id, claim.fence, result) for claim, result in answered])


def _post(claim: Claim, hmac_key: str | None) -> Result:
    from functions.fcm_dispatch import fcm

    if time.time() >= claim.until:
        # This environment was frozen between claim and POST. Nothing was sent, but the row may be `unknown` by now.
        return Result(outcome="retry_wait", fcm_status="TOO_LATE", error_msg="Its lease or life ended before the POST.")
    try:
        data = message.build(claim, hmac_key)
        prepared = fcm.message(data, claim.fcm_token, claim.ttl_seconds)
    except Exception as error:
        # A defect in NexMDM. Nothing was sent, and the result must say so.
        logs.failure(error)
        why = f"The message could not be built: {type(error).__name__}."
        return Result(outcome="retry_wait", fcm_status="NOT_BUILT", error_msg=why)
    return fcm.send(prepared, keep_answer=not claim.secrets)


def _hmac_key(config: Settings) -> str | None:
    return secrets.hmac_key(config)


def load_firebase() -> None:
    """Load the client before the first message is sent."""
    from functions.fcm_dispatch import fcm  # noqa: F401
