"""Refused registrations, counted for each address: whoever keeps trying is told to wait.

A token holds 256 random bits, so guesses need no limit to be hopeless; the limit keeps load and noise down and makes a
phone with a wrong token back off. A valid token is looked at first and always gets in: a hundred phones behind one
address cannot be locked out by one of them, nor by a stranger on the same carrier's address.
"""

import time
from ipaddress import ip_address, ip_network

from nexmdm.runtime import logs, metrics
from nexmdm.runtime.database import Executor, elapsed_ms
from nexmdm.runtime.errors import TooManyAttempts

# One wrong phone, backing off as the agent does, tries six times in the first minute.
ALLOWED, WINDOW_SECONDS = 60, 60


def count(db: Executor, address: str | None) -> None:
    """Count one refused registration. Beyond the limit nothing is written.

    Raises:
        TooManyAttempts: ALLOWED refusals within WINDOW_SECONDS were there already.
    """
    start = time.perf_counter()
    parameters = {"source": source(address), "allowed": ALLOWED, "seconds": WINDOW_SECONDS}
    metrics.count("RegistrationRefused")
    if not db.execute(_COUNT, parameters, repeatable=True):
        raise TooManyAttempts(WINDOW_SECONDS)
    logs.db_operation("update", "registration_refusals", {"source": parameters["source"]}, elapsed_ms(start))


def source(address: str | None) -> str:
    """Whom an address belongs to: itself, or its /64 of IPv6, in which one subscriber has 2^64 to choose from."""
    try:
        ip = ip_address(address or "")
    except ValueError:
        return "unknown"
    return str(ip) if ip.version == 4 else str(ip_network((ip, 64), strict=False))


# The row's lock makes callers of all environments take turns. The guard before it keeps the lock and the WAL of an
# update whose WHERE is false away from those who are over the limit.
_COUNT = """
INSERT INTO registration_refusals AS r (source, since, refused)
SELECT %(source)s, statement_timestamp(), 1
WHERE NOT EXISTS (
    SELECT FROM registration_refusals
    WHERE source = %(source)s AND refused >= %(allowed)s
      AND since > statement_timestamp() - make_interval(secs => %(seconds)s))
ON CONFLICT (source) DO UPDATE SET
    refused = CASE WHEN r.since > excluded.since - make_interval(secs => %(seconds)s) THEN r.refused + 1 ELSE 1 END,
    since = CASE WHEN r.since > excluded.since - make_interval(secs => %(seconds)s) THEN r.since ELSE excluded.since END
WHERE r.refused < %(allowed)s OR r.since <= excluded.since - make_interval(secs => %(seconds)s)
RETURNING source
"""
