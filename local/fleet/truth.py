"""Compares what the server shows about a fleet with the phones. A lie is a status that contradicts the phone."""

from collections.abc import Container, Iterable, Iterator

import msgspec
from msgspec import Struct

from local.fleet.device import Device
from local.operator_api import Operator

FINISHED = ("completed", "failed")
# The results of a command that mean success and failure, from acknowledgements and reports.
SUCCESS = ("ok", "success", "completed", "OK")


async def lies_about_devices(operator: Operator, living: Iterable[Device], gone: Iterable[str]) -> list[str]:
    """Check which devices are online and which exist.

    Args:
        living: enrolled devices, which know whether they have a network. Those with a network must have reported
        recently. gone: ids of deleted devices.
    """
    online = await operator.online()
    found = [f"{device_id} was deleted but is still listed" for device_id in gone if device_id in online]
    for device in living:
        known = device.credentials
        if known is None or known.device_id not in online:
            found.append(f"{device.alias} is enrolled but is not listed")
        elif online[known.device_id] != device.online:
            says = "online" if online[known.device_id] else "silent"
            found.append(f"{device.alias} is shown as {says} but {'has' if device.online else 'has no'} network")
    return found


async def lies_about_commands(operator: Operator, sent: dict[str, Device], earlier: Container[str]) -> list[str]:
    """Check the results of commands.

    Args:
        sent: {request_id: the device that it went to}.
        earlier: request_ids sent to a phone before it was enrolled again. Open ones are cancelled, even if the phone
        had run the command without reporting it.
    """
    found = []
    for request_id, device in sent.items():
        command = msgspec.convert(await operator.call("GET", f"/v1/commands/{request_id}"), _Told)
        lies = _about(command, device, request_id in earlier)
        found += [f"{command.action} {request_id} to {device.alias}: {lie}" for lie in lies]
    return found


class _Told(Struct):
    """The lies about one command."""

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
        yield f"has the result {command.result!r}, but the phone never ran it"
    if settled and device.profile == "field" and command.answered == "never":
        yield f"has the result {command.result!r}, but this agent never answers it"
    if earlier and not settled and command.state != "cancelled":
        yield f"is {command.state}, but its phone was replaced"
    if run is None:
        return
    if not earlier and command.state in ("failed", "expired", "cancelled", "accepted", "retry_wait"):
        yield f"is {command.state}, but the phone ran it"
    if settled and run.succeeded is not None and (command.result in SUCCESS) != run.succeeded:
        yield f"has the result {command.result!r}, but it {'succeeded' if run.succeeded else 'failed'}"
    if settled and run.succeeded is None:
        yield f"has the result {command.result!r}, but the phone is still running it"


class Installation(Struct):
    """An installation in the database."""

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
            found.append(f"{what} on {device.alias} is shown as {row.status}, but the phone has {installed}")
    return found
