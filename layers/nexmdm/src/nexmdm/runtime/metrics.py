"""CloudWatch metrics, written as embedded metric format at the end of an invocation. Alarms name only these."""

from collections import Counter
from functools import lru_cache
from typing import Any

from nexmdm.runtime import settings

NAMESPACE = "NexMDM"


@lru_cache(maxsize=1)
def _metrics() -> Any:
    # Loaded by the first metric: most functions never count anything.
    from aws_lambda_powertools import Metrics

    # Two stacks of one account must not count into each other's alarms.
    return Metrics(namespace=NAMESPACE, service=settings.load().powertools_service_name)


# What was counted in this invocation, added up: a thousand messages are one figure, not a thousand.
_counts: Counter[str] = Counter()


def count(name: str, value: int = 1) -> None:
    _counts[name] += value


def milliseconds(name: str, value: float) -> None:
    _metrics().add_metric(name=name, unit="Milliseconds", value=value)


def seconds(name: str, value: float) -> None:
    _metrics().add_metric(name=name, unit="Seconds", value=value)


def flush() -> None:
    """Write what was counted and forget it, so that nothing is carried over to the next call."""
    for name, value in _counts.items():
        _metrics().add_metric(name=name, unit="Count", value=value)
    _counts.clear()
    if _metrics.cache_info().currsize and _metrics().metric_set:
        _metrics().flush_metrics()
