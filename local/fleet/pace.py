from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How often things happen in a fleet. Shares are probabilities.

    Args:
        interval: seconds between heartbeats of the existing agent, and of a reference agent until the server announces
        an interval. announced_scale: a factor for the `next_heartbeat_seconds` that a reference agent follows.
        backoff_scale: a factor for every pause before a retry. duplicate_share: of heartbeats that the network delivers
        twice at once. offline_share: of heartbeats before which the network goes away, for `offline_intervals` times
        the interval. two_broadcasts_share: of phones with the existing agent that are configured by two broadcasts in a
        row. odd_share: of an odd device's reports that have one odd value.
    """

    interval: float = 600.0
    announced_scale: float = 1.0
    backoff_scale: float = 1.0
    duplicate_share: float = 0.05
    offline_share: float = 0.01
    offline_intervals: tuple[float, float] = (2.0, 6.0)
    two_broadcasts_share: float = 0.2
    odd_share: float = 0.1
