"""`python -m local.openapi` writes the document where people and the console read it."""

import json

from local.openapi.document import ROOT, build

FILES = (ROOT / "docs/openapi.json", ROOT / "cli/src/nexmdm_cli/console/assets/openapi.json")


def text() -> str:
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    written = text()
    for path in FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written)
