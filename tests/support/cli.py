"""Run the `nexmdm` command in this process."""

from functools import cache

import typer.testing
from nexmdm_cli.main import app
from typer.testing import CliRunner, Result

# CliRunner would build all commands from their annotations again for each call.
typer.testing._get_command = cache(typer.testing._get_command)


def nexmdm(*arguments: str, code: int = 0, answer: str | None = None) -> Result:
    """Run the command once. `code` is the expected exit code; `answer` is what the operator types."""
    result = CliRunner().invoke(app, arguments, input=answer)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result
