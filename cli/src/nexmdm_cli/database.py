"""`nexmdm db`: database schema commands, run with the tools of the checkout."""

import os
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from nexmdm_cli import local_stack
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True,
    help="Migrate, check or adopt the database at DATABASE_URL, or the local one. Needs a checkout.",
)


@command(app, of_stack=False)
def migrate(
    session: Session,
    revision: Annotated[
        str, typer.Argument(help="The target revision; head is the newest.", metavar="REVISION")
    ] = "head",
) -> None:
    """Upgrade the schema to head, like `make migrate`. A deployed stack is migrated during the deploy."""
    _run(session, "alembic", "upgrade", revision)


@command(app, "check-schema", of_stack=False)
def check_schema(session: Session) -> None:
    """Compare the database with the models: one line per difference, or `Schema validation passed!`."""
    _run(session, "local.check_schema")


@command(app, of_stack=False)
def adopt(
    session: Session,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only inspect and report; the old server may keep running.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Adopt a database of the old server. Stop that server and take a snapshot first."""
    if not dry_run:
        session.confirm("Is the old server stopped, and is there a snapshot?", yes)
    _run(session, "migrations.adoption", *(["--dry-run"] if dry_run else []))


def _run(session: Session, module: str, *arguments: str) -> None:
    checkout = local_stack.checkout()
    if checkout is None:
        raise Failure(
            "`nexmdm db` works only in a checkout of the repository.",
            Code.USAGE,
            "Clone it, then `make setup`.",
        )
    python = checkout / ".venv" / "bin" / "python"
    if not python.exists():
        raise Failure(f"{checkout} is not set up.", Code.USAGE, f"Run `make -C {checkout} setup`.")
    ended = _output_of([str(python), "-m", module, *arguments], checkout, session.out.as_json)
    if session.out.as_json:
        session.out.json({"command": [module, *arguments], "exit_code": ended.returncode, "output": ended.stdout})
    if ended.returncode:
        raise Failure(
            f"`python -m {module}` ended with {ended.returncode}.",
            hint="See the section on troubleshooting in docs/quickstart.md.",
        )


def _output_of(command_line: list[str], folder: Path, kept: bool) -> subprocess.CompletedProcess[str]:
    """If `kept` is true, stdout is returned instead of shown."""
    # Runs only tools of the checkout whose names are constants in this file.
    return subprocess.run(  # noqa: S603
        command_line, cwd=folder, env=os.environ, stdout=subprocess.PIPE if kept else None, text=True, check=False
    )
