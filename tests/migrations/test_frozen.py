"""Released revisions, and everything that they import, do not change: databases in the field have run them."""

import ast
import hashlib
import sys
from pathlib import Path

import pytest

from tests.support.api import ROOT

MIGRATIONS = ROOT / "migrations"
LIST = MIGRATIONS / "frozen.txt"
# The format of `sha256sum`: hash, two spaces, path.
FROZEN = {path: digest for digest, _, path in (line.partition("  ") for line in LIST.read_text().splitlines())}
REVISIONS = sorted((MIGRATIONS / "versions").glob("*.py"))
FROM_OUTSIDE = {"alembic", "sqlalchemy", "psycopg2"}


def imported(file: Path) -> set[str]:
    """The full names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if _file(name)} or {node.module}
    return found


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def closure(file: Path) -> set[Path]:
    """The repository's files that a file imports, directly or indirectly."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        for module in imported(waiting.pop()):
            inner = _file(module)
            if inner and inner not in found:
                found.add(inner)
                waiting.append(inner)
    return found


@pytest.mark.parametrize("path", FROZEN)
def test_released_file_does_not_change(path: str):
    assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == FROZEN[path], (
        f"{path} was released: write a new revision instead (docs/migrations.md)"
    )


@pytest.mark.parametrize("revision", REVISIONS, ids=lambda path: path.stem)
def test_revision_imports_only_frozen_files(revision: Path):
    files = closure(revision)
    for file in {revision, *files}:
        roots = {name.partition(".")[0] for name in imported(file)}
        assert roots <= {*FROM_OUTSIDE, *sys.stdlib_module_names, "migrations"}, file
    assert {str(file.relative_to(ROOT)) for file in files} <= FROZEN.keys()
