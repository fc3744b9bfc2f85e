from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How often things happen.

    interval: seconds between heartbeats; backoff_scale: a factor for every pause before a retry. Shares are
    probabilities for each heartbeat, `batch_share` for each device.
    """

    interval: float = 600.0
    backoff_scale: float = 1.0
    duplicate_share: float = 0.05
    offline_share: float = 0.01
    offline_intervals: tuple[float, float] = (2.0, 6.0)
    batch_share: float = 0.0
