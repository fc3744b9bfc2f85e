"""How much is tried, and the table at the end of the run. TORTURE=10 tries ten times as much (`make torture`)."""

import os
from collections.abc import Iterator

import pytest
from nexmdm.commands.audit import AuditQuery, audit
from nexmdm.runtime.database import Database

from tests.support.claims import Claim

# Mutations contain exact texts of the code; `make torture` and `make mutations` check that they still apply.
collect_ignore = [] if "TORTURE" in os.environ else ["test_mutations.py"]
_claims = pytest.StashKey[list[tuple[str, str, int]]]()


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> Claim:
    """claim(what holds, what was tried, how often) records a promise that was seen to hold."""

    def claim(what: str, tried: str, times: int) -> None:
        request.config.stash.setdefault(_claims, []).append((what, tried, times))

    return claim


@pytest.fixture(autouse=True)
def the_audit_agrees(request: pytest.FixtureRequest) -> Iterator[None]:
    """After any fault, no command has an impossible history. test_races.py is exempt: it writes rows by hand."""
    by_hand = request.path.name == "test_races.py" or "url" not in request.fixturenames
    url = None if by_hand else request.getfixturevalue("url")
    yield
    if url:
        db = Database(url)
        found = audit(db, AuditQuery())
        db.close()
        assert found.violations == 0, found.first


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    claims = config.stash.get(_claims, [])
    if not claims:
        return
    terminalreporter.section("what was tried, and held")
    width = max(len(what) for what, _, _ in claims)
    for what, tried, times in claims:
        terminalreporter.write_line(f"{what:{width}}  {times:>7} × {tried}")
