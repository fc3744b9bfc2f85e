import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nexmdm_cli import local_stack
from typer.testing import Result

from tests.cli.stack import KEYS, Stack, running
from tests.support.cli import nexmdm


@pytest.fixture(scope="package")
def stack(server: str, template: str) -> Iterator[Stack]:
    with running(server, template) as stack:
        yield stack


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator in an empty folder, without configuration, credentials or a local stack."""
    for name in (
        *KEYS,
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "NEXMDM_URL",
        "NO_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(local_stack, "OWN_CHECKOUT", tmp_path)  # a developer's own `make run` must not be found
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def operator(home: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same operator with credentials and the stack's URL."""
    for name, value in {**KEYS, "AWS_REGION": "eu-west-1", "NEXMDM_URL": stack.url}.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture
def run(operator: Path) -> Callable[..., Result]:
    return nexmdm


@pytest.fixture
def data(operator: Path) -> Callable[..., Any]:
    """Run the command with --json; return the parsed standard output."""

    def data(*arguments: str, code: int = 0) -> Any:
        return json.loads(nexmdm(*arguments, "--json", code=code).stdout)

    return data


@pytest.fixture
def settled(data: Callable[..., Any]) -> None:
    """Cancel the unknown commands that other tests left behind."""
    for command in data("commands", "list", "--state", "unknown"):
        data("commands", "cancel", command["request_id"])
