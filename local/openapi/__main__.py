"""`python -m local.openapi` writes the OpenAPI document and the data for the console's forms."""

import json
from pathlib import Path
from typing import Any

from local.openapi import document, forms

ASSETS = document.ROOT / "cli/src/nexmdm_cli/console/assets"
FILES = (
    document.ROOT / "docs/openapi.json",
    ASSETS / "openapi.json",
    ASSETS / "actions.json",
    ASSETS / "conditions.json",
)


def written() -> dict[Path, str]:
    """Returns {file: content}."""
    api = _text(document.build())
    return dict(zip(FILES, (api, api, _text(forms.actions()), _text(forms.conditions())), strict=True))


def _text(value: Any) -> str:
    return json.dumps(document.portable(value), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in written().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
