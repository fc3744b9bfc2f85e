"""Devices by what people call them: an alias, or an id."""

import os
import uuid

from nexmdm_cli import stack
from nexmdm_cli.api import PAGE, Api, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.resources import Device


def find(api: Api, name: str) -> Device:
    """The living device with this alias, else with this id.

    Raises:
        Failure: there is none; says which aliases begin like it.
    """
    beginning = list(api.pages(Device, "/v1/devices", {"alias": name}, limit=5))
    exact = next((device for device in beginning if device.alias == name), None)
    if exact:
        return exact
    if _is_id(name):
        return api.read(Device, "GET", path("devices", name))
    like = ", ".join(device.alias for device in beginning)
    hint = f"There are {like}." if like else "`nexmdm devices list` prints those there are."
    raise Failure(f"There is no device {name!r}.", Code.NOT_FOUND, hint)


def aliases(api: Api) -> dict[str, str]:
    """{id: alias} of the first page of devices, which is all of a small fleet; for tables, at the price of one call."""
    return {device.device_id: device.alias for device in api.pages(Device, "/v1/devices", limit=PAGE)}


def complete(incomplete: str) -> list[str]:
    """Aliases for shell completion; nothing when the stack cannot be asked."""
    try:
        api = Api(stack.find(stack.Choice(url=os.environ.get("NEXMDM_URL"))))
        return [device.alias for device in api.pages(Device, "/v1/devices", {"alias": incomplete or None}, limit=50)]
    except Exception:  # a completion that raises would print into the person's command line
        return []


def _is_id(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name.lower()
    except ValueError:
        return False
