"""Look up devices by alias or id."""

import os
import uuid

from nexmdm_cli import stack
from nexmdm_cli.api import Api, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.resources import Device


def find(api: Api, name: str) -> Device:
    """The enrolled device with this alias, or else with this id.

    Raises:
        Failure: there is none; suggests aliases that begin with the same characters.
    """
    beginning = list(api.pages(Device, "/v1/devices", {"alias": name}, limit=5))
    exact = next((device for device in beginning if device.alias == name), None)
    if exact:
        return exact
    if _is_id(name):
        return api.read(Device, "GET", path("devices", name))
    like = ", ".join(device.alias for device in beginning)
    hint = f"There are {like}." if like else "`nexmdm devices list` lists all devices."
    raise Failure(f"There is no device {name!r}.", Code.NOT_FOUND, hint)


def aliases(api: Api, limit: int | None = None) -> dict[str, str]:
    """{id: alias} of all devices, or of the first `limit`."""
    return {device.device_id: device.alias for device in api.pages(Device, "/v1/devices", limit=limit)}


def complete(incomplete: str) -> list[str]:
    """Aliases for shell completion; none if the stack cannot be reached."""
    try:
        api = Api(stack.find(stack.Choice(url=os.environ.get("NEXMDM_URL"))))
        return [device.alias for device in api.pages(Device, "/v1/devices", {"alias": incomplete or None}, limit=50)]
    except Exception:  # an exception during completion would be printed into the user's command line
        return []


def _is_id(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name.lower()
    except ValueError:
        return False
