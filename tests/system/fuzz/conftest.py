"""FUZZ_EXAMPLES=N scales what is tried (random, where the suite's own run is the same each time), and what was tried is
said at the end of the run."""

import os

import pytest

_TRIED: list[str] = []


@pytest.fixture(scope="session")
def scale() -> int | None:
    """How many inputs to try of each kind; None is the suite's own bounded, deterministic run."""
    return int(os.environ["FUZZ_EXAMPLES"]) if os.environ.get("FUZZ_EXAMPLES") else None


@pytest.fixture(scope="session")
def tried() -> list[str]:
    """Lines about what was tried, for the end of the run."""
    return _TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TRIED:
        terminalreporter.section("inputs tried")
        for line in _TRIED:
            terminalreporter.write_line(line)
