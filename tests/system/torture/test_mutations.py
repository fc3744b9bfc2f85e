"""Every protection that `make mutations` removes still exists in the code, and so do the tests that detect it."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.system.torture.mutations import ROOT, Mutation, load, main

ENTRIES = Path(__file__).with_name("mutations.toml")
NO_LONGER = "tests/system/torture/mutations.toml has to follow the code"


@pytest.mark.parametrize("mutation", load(), ids=lambda mutation: mutation.what)
def test_mutation_still_applies(mutation: Mutation):
    changed = mutation.source(ROOT)
    if mutation.file.endswith(".py"):
        compile(changed, mutation.file, "exec")


@pytest.mark.parametrize("mutation", load(), ids=lambda mutation: mutation.what)
def test_tests_of_a_mutation_exist(mutation: Mutation):
    for name in mutation.tests:
        path, _, test = name.partition("::")
        source = (ROOT / path).read_text()
        assert not test or re.search(rf"^def {re.escape(test)}\(", source, re.MULTILINE), f"{name}: {NO_LONGER}"


def test_page_has_the_number_of_mutations():
    page = (ROOT / "docs/torture.md").read_text()
    said = re.findall(r"(?:each of|each of the|There are) (\d+) ", page)
    assert [str(len(load()))] * 3 == said, "docs/torture.md"


def test_mutations_of_functions_name_the_function():
    """A mutation of an older version, or of one that a later revision replaced, would have no effect."""
    named = [entry for entry in tomllib.loads(ENTRIES.read_text())["mutation"] if "file" in entry]
    wrong = [entry["what"] for entry in named if entry["file"].startswith("migrations/sql/")]
    assert wrong == [], "name the function"
    of_function = re.compile(r"CREATE (OR REPLACE )?FUNCTION")
    revisions = {entry["file"] for entry in named if entry["file"].startswith("migrations/versions/")}
    assert [file for file in sorted(revisions) if of_function.search((ROOT / file).read_text())] == []


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("no such mutation", 2)])
def test_words_that_select_nothing_run_nothing(word: str, code: int):
    """Without the name of a test, pytest would run the whole suite."""
    with pytest.raises(SystemExit) as ended:
        main([word])
    assert ended.value.code == code


def test_mutation_that_no_longer_applies_is_reported(tmp_path: Path):
    (tmp_path / "code.py").write_text("if guarded:\n    act()\nif guarded:\n    act()\n")
    for old in ("if protected:", "if guarded:"):
        with pytest.raises(LookupError, match=r"stands [02] times"):
            Mutation("a guard", "code.py", old, "if True:", []).source(tmp_path)
