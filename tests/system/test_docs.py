"""The README's commands succeed, and the links of all documents lead somewhere.

tests/system/extra/test_documented_commands.py runs the commands of the other documents.
"""

import re
from pathlib import Path

import pytest

from tests.support.api import ROOT
from tests.support.documents import DOCUMENTS, is_run, run_commands, running_checkout, statements


def test_commands_of_the_readme_succeed(server, template):
    with running_checkout(server, template) as checkout:
        run_commands(Path("README.md"), checkout)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of the document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_link_targets_of_a_document_exist(document):
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text()):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (ROOT / document).parent / path if path else ROOT / document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_failing_command_is_detected(tmp_path):
    assert statements("a 'b\nc' \\\n  d\ne\n") == ["a 'b\nc' \\\n  d\n", "e\n"]
    assert not is_run("aws s3 ls")
    assert is_run("nexmdm status")
