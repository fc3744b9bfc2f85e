"""What the server says of a fleet, compared with what the phones know. A lie is a status that a phone could refute."""

from collections.abc import Container, Iterable, Iterator

import msgspec
from msgspec import Struct

from local.fleet.device import Device
from local.operator_api import Operator

FINISHED = ("completed", "failed")
# What an acknowledgement's or a report's success and failure are called in a command's result.
SUCCESS = ("ok", "success", "completed", "OK")


async def lies_about_devices(operator: Operator, living: Iterable[Device], gone: Iterable[str]) -> list[str]:
    """Who is online, and who exists.

    Args:
        living: enrolled devices; each knows whether it has a network. One that has must have reported lately.
        gone: ids of deleted devices.
    """
    online = await operator.online()
    found = [f"{device_id} was deleted and is still listed" for device_id in gone if device_id in online]
    for device in living:
        known = device.credentials
        if known is None or known.device_id not in online:
            found.append(f"{device.alias} is enrolled and is not listed")
        elif online[known.device_id] != device.online:
            says = "online" if online[known.device_id] else "silent"
            found.append(f"{device.alias} is called {says} and {'has' if device.online else 'has no'} network")
    return found


async def lies_about_commands(operator: Operator, sent: dict[str, Device], earlier: Container[str]) -> list[str]:
    """What became of commands.

    Args:
        sent: {request_id: the device that it went to}.
        earlier: request_ids sent to a phone before it was enrolled again. What was still open of them is cancelled,
            also when the phone had run it and never said so.
    """
    found = []
    for request_id, device in sent.items():
        command = msgspec.convert(await operator.call("GET", f"/v1/commands/{request_id}"), _Told)
        lies = _about(command, device, request_id in earlier)
        found += [f"{command.action} {request_id} to {device.alias}: {lie}" for lie in lies]
    return found


class _Told(Struct):
    """What the server says of a command."""

    request_id: str
    action: str
    state: str
    completed_at: str | None
    result: str | None
    answered: str | None = None


def _about(command: _Told, device: Device, earlier: bool) -> Iterator[str]:
    run = device.ran.get(command.request_id)
    settled = command.completed_at is not None
    if settled and run is None:
        yield f"says {command.result!r}, and the phone never ran it"
    if settled and device.profile == "field" and command.answered == "never":
        yield f"says {command.result!r}, and this agent never answers it"
    if earlier and not settled and command.state != "cancelled":
        yield f"is {command.state}, and the phone it was for is gone"
    if run is None:
        return
    if not earlier and command.state in ("failed", "expired", "cancelled", "accepted", "retry_wait"):
        yield f"is {command.state}, and the phone ran it"
    if settled and run.succeeded is not None and (command.result in SUCCESS) != run.succeeded:
        yield f"says {command.result!r}, and it {'succeeded' if run.succeeded else 'failed'}"
    if settled and run.succeeded is None:
        yield f"says {command.result!r}, and the phone is still at it"


class Installation(Struct):
    """One that the database holds."""

    device_id: str
    package_name: str
    version_code: int
    status: str


def lies_about_installations(rows: Iterable[Installation], devices: dict[str, Device]) -> list[str]:
    """devices: by their id."""
    found = []
    for row in rows:
        device = devices.get(row.device_id)
        if device is None or row.status not in FINISHED:
            continue
        runs = device.phone.version_code(row.package_name) == row.version_code
        if runs != (row.status == "completed"):
            installed = device.phone.version_code(row.package_name)
            what = f"{row.package_name} {row.version_code}"
            found.append(f"{what} on {device.alias} is called {row.status}; the phone has {installed}")
    return found
