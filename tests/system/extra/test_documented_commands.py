"""Run every command in docs/, in the order of each document."""

import pytest

from tests.support.documents import DOCUMENTS, blocks, run_commands, running_checkout


@pytest.fixture(scope="module")
def checkout(server, template):
    with running_checkout(server, template) as checkout:
        yield checkout


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name != "README.md" and blocks(d)], ids=str)
def test_commands_of_a_document_succeed(checkout, document):
    run_commands(document, checkout)
