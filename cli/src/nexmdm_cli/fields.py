"""The device fields that have a label in the OpenAPI document; other fields are shown by code of their own."""

import json
from functools import cache
from importlib.resources import files

from nexmdm_cli.output import clean, shown
from nexmdm_cli.resources import Device


@cache
def labelled() -> dict[str, tuple[str, str]]:
    """{field of a device: (label, unit)}, in the document's order."""
    document = json.loads(files("nexmdm_cli").joinpath("console/assets/openapi.json").read_text(encoding="utf-8"))
    members = document["components"]["schemas"]["Device"]["properties"]
    return {name: (told["title"], told.get("x-unit", "")) for name, told in members.items() if "title" in told}


def rows(device: Device) -> list[tuple[str, str]]:
    """(label, value with its unit) of each labelled field."""
    return [
        (label, clean(shown(device.document.get(name), f" {unit}" if unit else "")))
        for name, (label, unit) in labelled().items()
    ]
