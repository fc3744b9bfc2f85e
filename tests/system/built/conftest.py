"""Print the measurements of all functions together at the end of the run."""

from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    lines = [value for report in reports for name, value in report.user_properties if name == "measured"]
    if lines:
        terminalreporter.section("unzipped code and layers, import, peak memory, first answers (cold, then warm)")
        terminalreporter.write_line("\n".join(sorted(lines)))
    return (yield)
