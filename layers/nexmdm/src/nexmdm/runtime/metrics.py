"""CloudWatch metrics, written as embedded metric format at the end of an invocation. Alarms use only these."""

from collections import Counter
from functools import lru_cache
from typing import Any

from nexmdm.runtime import settings

NAMESPACE = "NexMDM"


@lru_cache(maxsize=1)
def _metrics() -> Any:
    # Loaded with the first metric: most invocations count nothing.
    from aws_lambda_powertools import Metrics

    # Two stacks in one account must not trigger each other's alarms.
    return Metrics(namespace=NAMESPACE, service=settings.load().powertools_service_name)


# The sums of this invocation: a thousand messages are written as one value.
_counts: Counter[str] = Counter()


def count(name: str, value: int = 1) -> None:
    _counts[name] += value


def milliseconds(name: str, value: float) -> None:
    _metrics().add_metric(name=name, unit="Milliseconds", value=value)


def seconds(name: str, value: float) -> None:
    _metrics().add_metric(name=name, unit="Seconds", value=value)


def flush() -> None:
    """Write the metrics and reset them, so that nothing is carried over to the next invocation."""
    for name, value in _counts.items():
        _metrics().add_metric(name=name, unit="Count", value=value)
    _counts.clear()
    if _metrics.cache_info().currsize and _metrics().metric_set:
        _metrics().flush_metrics()
