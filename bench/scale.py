"""Estimates of cost and scale: `python -m bench.scale [--devices 1000 100000 1000000] [--interval 600] [--commands 4]`.

Prints the two tables of docs/scale.md from the figures of `Model`: the requirements for a number of devices, and the
number of devices at which each limit is reached. A test compares the document with the output.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from bench.costs import MONTH_HOURS, MONTH_SECONDS, million_heartbeats, prices

DEVICES = (1_000, 100_000, 1_000_000)


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Measured by `make bench` on the machine of docs/scale.md, unless stated otherwise."""

    interval: float = 600  # seconds between a device's heartbeats: HEARTBEAT_INTERVAL_SECONDS
    commands: float = 4  # per device and day, each acknowledged once
    outage_seconds: float = 3_600  # after it every device drains its queue within RETRY_SECONDS: the design's peak
    retry_seconds: float = 300  # the agent's longest pause
    ttl_seconds: float = 600  # of a command

    statement_ms: float = prices()["measured"]["statement_ms"]  # a heartbeat's statement, p50
    accept_us: float = 20  # one command of a bulk command
    row_bytes: float = prices()["measured"]["heartbeat_row_bytes"]
    count_us: float = 0.1  # one row of a dropped partition
    sends_per_second: float = 320  # of one environment: 32 at once, 100 ms for FCM's answer (assumed)

    handler_seconds: float = prices()["assumed"]["handler_seconds"]  # billed for a heartbeat
    unit_processors: float = 0.25  # of an Aurora capacity unit; from memory
    busy: float = 0.5  # share of its CPUs at which Aurora adds a unit
    units_at_rest: float = 0.5
    most_units: float = 256

    fcm_per_minute: float = 600_000  # FCM's default quota
    lambda_concurrency: float = 1_000  # an account's default
    api_per_second: float = 10_000  # an account's default for an HTTP API
    connections: float = 400  # the template's alarm
    sweep_share: float = 0.8  # of each minute in which the sweep sends: it stops 12 s before its timeout of 60
    accept_seconds: float = 20  # of the 30 that an HTTP API waits
    cleanup_seconds: float = 75  # a policy's share of the cleanup's 300

    def heartbeats(self, devices: float) -> float:
        """A second."""
        return devices / self.interval

    @property
    def peak(self) -> float:
        """The factor of the usual rate after an outage."""
        return (self.outage_seconds / self.interval + 1) * self.interval / self.retry_seconds

    def requests(self, devices: float) -> float:
        """Millions a month."""
        return devices * (MONTH_SECONDS / self.interval + 30 * 2 * self.commands) / 1e6

    def units(self, rate: float) -> float:
        """Aurora capacity units for this rate of heartbeats."""
        return max(self.units_at_rest, rate * self.statement_ms / 1000 / self.busy / self.unit_processors)

    def stored_gb(self, devices: float) -> float:
        """Two days of retention, and up to six hours that wait for the next cleanup."""
        return devices * (2.25 * 86_400 / self.interval) * self.row_bytes / 1e9

    def partition_rows(self, devices: float) -> float:
        """Heartbeats of six hours, which the cleanup counts and drops in one run."""
        return devices * 6 * 3_600 / self.interval


def needs(model: Model) -> dict[str, Callable[[float], str]]:
    """The rows of the table, as functions of the number of devices."""
    m, usd = model, costs(model)
    return {
        "heartbeats a second, usual": lambda d: _short(m.heartbeats(d)),
        f"after an hour's outage (× {m.peak:g})": lambda d: _short(m.heartbeats(d) * m.peak),
        "requests a month, million": lambda d: _short(m.requests(d)),
        "Aurora capacity units, usual": lambda d: _short(m.units(m.heartbeats(d))),
        "… after the outage": lambda d: _short(m.units(m.heartbeats(d) * m.peak)),
        "Lambda environments after the outage": lambda d: _whole(m.heartbeats(d) * m.peak * m.handler_seconds),
        "database connections then, without RDS Proxy": lambda d: _whole(m.heartbeats(d) * m.peak * m.handler_seconds),
        "… through it: in a statement at once": lambda d: _whole(m.heartbeats(d) * m.peak * m.statement_ms / 1000),
        "heartbeats stored, GB": lambda d: _short(m.stored_gb(d)),
        "rows in a partition of six hours": lambda d: _short(m.partition_rows(d)),
        "a command to all: accepted in, s": lambda d: _short(d * m.accept_us / 1e6),
        "… sent by one sweep in, min": lambda d: _short(d / m.sends_per_second / m.sweep_share / 60),
        "… at FCM's quota in, min": lambda d: _short(d / m.fcm_per_minute),
        **{f"{name}, USD a month": partial(_shortly, part) for name, part in usd.items()},
        "total, USD a month": lambda d: _short(sum(part(d) for part in usd.values())),
    }


def _shortly(part: Callable[[float], float], devices: float) -> str:
    return _short(part(devices))


def costs(model: Model) -> dict[str, Callable[[float], float]]:
    m, million, aurora = model, million_heartbeats(), prices()["aurora"]
    return {
        "HTTP API": lambda d: m.requests(d) * million["HTTP API"],
        "Lambda": lambda d: m.requests(d) * million["Lambda"],
        "Aurora's units": lambda d: m.units(m.heartbeats(d)) * MONTH_HOURS * aurora["unit_hour"],
        "storage and I/O": lambda d: (
            m.stored_gb(d) * aurora["storage_gb_month"] + m.heartbeats(d) * MONTH_SECONDS / 1e6 * million["Aurora I/O"]
        ),
        "logs": lambda d: m.requests(d) * (million["logs, ingested"] + million["logs, stored"]),
    }


def limits(model: Model) -> list[tuple[str, float]]:
    """The number of devices at which each limit is reached, lowest first."""
    m = model
    peak_per_device = m.peak / m.interval
    found = {
        f"a command to all sent by one sweep within its {m.ttl_seconds:.0f} s": m.sends_per_second
        * m.sweep_share
        * m.ttl_seconds,
        f"HTTP API's {m.api_per_second:,.0f} requests a second, after the outage": m.api_per_second / peak_per_device,
        f"{m.connections:.0f} connections without RDS Proxy, after the outage": m.connections
        / m.handler_seconds
        / peak_per_device,
        f"a command to all accepted within {m.accept_seconds:.0f} s": m.accept_seconds * 1e6 / m.accept_us,
        f"Lambda's {m.lambda_concurrency:,.0f} environments, after the outage": m.lambda_concurrency
        / m.handler_seconds
        / peak_per_device,
        f"a partition counted within {m.cleanup_seconds:.0f} s": m.cleanup_seconds
        * 1e6
        / m.count_us
        / m.partition_rows(1),
        "a command to all at FCM's quota within its time": m.fcm_per_minute * m.ttl_seconds / 60,
        f"one Aurora writer of {m.most_units:.0f} units, after the outage": m.most_units
        * m.unit_processors
        * m.busy
        / m.statement_ms
        * 1000
        / peak_per_device,
    }
    return sorted(found.items(), key=lambda item: item[1])


def tables(model: Model, devices: tuple[int, ...]) -> Iterator[str]:
    """Lines of Markdown."""
    yield f"| | {' | '.join(f'{count:,}' for count in devices)} |"
    yield "|---" * (len(devices) + 1) + "|"
    for what, value in needs(model).items():
        yield f"| {what} | {' | '.join(value(count) for count in devices)} |"
    yield ""
    yield "| limit, lowest first | reached at |"
    yield "|---|---|"
    for what, count in limits(model):
        yield f"| {what} | {_short(count)} devices |"


def _whole(value: float) -> str:
    return _short(max(1, round(value)))


def _short(value: float) -> str:
    """A number with two significant digits: 0.16, 17, 2,300, 23 k, 1.2 M."""
    if value < 100:
        return f"{value:.2g}"
    rounded = float(f"{value:.2g}")
    for size, name in ((1e6, " M"), (1e4, " k")):
        if rounded >= size:
            return f"{rounded / (1e6 if name == ' M' else 1e3):g}{name}"
    return f"{rounded:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Estimate the requirements of a fleet.")
    parser.add_argument("--devices", type=int, nargs="+", default=list(DEVICES), metavar="N")
    for name, default in (("interval", Model().interval), ("commands", Model().commands)):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"(default: {default:g})")
    options = parser.parse_args()
    model = Model(interval=options.interval, commands=options.commands)
    print("\n".join(tables(model, tuple(options.devices))))


if __name__ == "__main__":
    main()
