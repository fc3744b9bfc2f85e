"""Invoke a function once, like `sam local invoke`: `python -m local.invoke FUNCTION [EVENT.json]`.

FUNCTION is the handler's folder or the template's logical id; the default event is `{}`, and `-` reads it from stdin.
The result is JSON on stdout; the function's output goes to stderr. If the function fails, the exit code is 1 and the
result is the error.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from local import schema, template
from local.gateway.environment import Environments, Outcome
from local.template import Function


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.invoke", description="Invoke a function once.")
    parser.add_argument("function", help="its folder, such as heartbeat, or its logical id")
    parser.add_argument("event", nargs="?", help="a JSON file, or - for stdin (default: {})")
    parser.add_argument("--template", type=Path, default=template.TEMPLATE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        function = template.load(options.template).function(options.function)
        event = _event(options.event)
        if not os.environ.get("DATABASE_URL"):
            schema.prepare()
    except (LookupError, OSError, RuntimeError, ValueError, schema.SchemaError) as error:
        sys.exit(f"local.invoke: {error.args[0] if isinstance(error, LookupError) else error}")
    outcome = asyncio.run(_once(function, event))
    print(json.dumps(outcome.error or outcome.result, indent=2, ensure_ascii=False))
    sys.exit(1 if outcome.error else 0)


def _event(name: str | None) -> Any:
    if name is None:
        return {}
    text = sys.stdin.read() if name == "-" else Path(name).read_text()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None


async def _once(function: Function, event: Any) -> Outcome:
    environments = Environments(function, limit=1)
    try:
        return await environments.invoke(event)
    finally:
        environments.close()


if __name__ == "__main__":
    main()
