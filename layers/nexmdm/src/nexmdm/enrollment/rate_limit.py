"""Rate limit for rejected registrations, which are counted per IP address.

A token has 256 random bits, so guessing is hopeless even without a limit; the limit reduces load and noise, and makes a
phone with a wrong token back off. A valid token is checked first and is always accepted: neither one of a hundred
phones behind an IP address, nor a stranger who shares a carrier's IP address, can lock out the others.
"""

import time
from ipaddress import ip_address, ip_network

from nexmdm.runtime import logs, metrics
from nexmdm.runtime.database import Executor, elapsed_ms
from nexmdm.runtime.errors import TooManyAttempts

# One phone with a wrong token, backing off like the agent, makes six attempts in the first minute.
ALLOWED, WINDOW_SECONDS = 60, 60


def count(db: Executor, address: str | None) -> None:
    """Count one rejected registration. Beyond the limit nothing is written.

    Raises:
        TooManyAttempts: ALLOWED registrations were already rejected within WINDOW_SECONDS.
    """
    start = time.perf_counter()
    parameters = {"source": source(address), "allowed": ALLOWED, "seconds": WINDOW_SECONDS}
    metrics.count("RegistrationRefused")
    if not db.execute(_COUNT, parameters, repeatable=True):
        raise TooManyAttempts(WINDOW_SECONDS)
    logs.db_operation("update", "registration_refusals", {"source": parameters["source"]}, elapsed_ms(start))


def source(address: str | None) -> str:
    """The key for counting an IP address: the address, or the /64 for IPv6, in which one subscriber has 2^64
    addresses."""
    try:
        ip = ip_address(address or "")
    except ValueError:
        return "unknown"
    return str(ip) if ip.version == 4 else str(ip_network((ip, 64), strict=False))


# The row's lock serializes calls from all environments. The guard before it avoids the lock and the WAL of an update
# whose WHERE is false for callers over the limit.
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
