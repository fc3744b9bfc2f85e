"""FUZZ_EXAMPLES=N scales the number of inputs and makes them random; the suite's own run is the same each time. The run
ends with a summary of what was tried."""

import os

import pytest

_TRIED: list[str] = []


@pytest.fixture(scope="session")
def scale() -> int | None:
    """How many inputs of each kind to try; None means the suite's own bounded, deterministic run."""
    return int(os.environ["FUZZ_EXAMPLES"]) if os.environ.get("FUZZ_EXAMPLES") else None


@pytest.fixture(scope="session")
def tried() -> list[str]:
    """Lines about what was tried, printed at the end of the run."""
    return _TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TRIED:
        terminalreporter.section("inputs tried")
        for line in _TRIED:
            terminalreporter.write_line(line)
