"""The grammar of label selectors, compared with a port of Kubernetes' own parser."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nexmdm.devices import selectors
from nexmdm.devices.selectors import Operator, Requirement
from nexmdm.runtime.errors import Invalid

from tests.support import label_selectors

# Selectors that apimachinery's own tests accept, with the keys that are valid here.
ACCEPTED = [
    "x=a,y=b,z=c",
    "x!=a,y=b",
    "x=",
    "x= ",
    "x=,z= ",
    "x= ,z= ",
    "!x",
    "x>1",
    "x>1,z<5",
    "x in ()",
    "x in (,)",
    "x in (a,)",
    "x in (,a)",
    "x in (a,,b)",
    "x notin (a)",
    "x in (in,notin)",
    "in in (in)",
    "notin",
    "in",
    "!in",
    "in=in",
    "x==a",
    "x!=",
    "x\tin\n( a , b )",
    "stage in (pilot,canary),owner,!retired,role!=spare",
]
# (selector, column of the error)
REFUSED = [
    ("", 1),
    ("   ", 4),
    (",", 1),
    ("x=a,", 5),
    ("x=a,,y=b", 5),
    ("x=a||y=b", 3),
    ("x==a==b", 5),
    ("!x=a", 3),
    ("!!x", 2),
    ("x<a", 3),
    ("x<", 3),
    ("x>-1", 3),
    ("x>9223372036854775808", 3),
    ("x in", 5),
    ("x in (", 7),
    ("x in (a", 8),
    ("x in (a b)", 9),
    ("x in (,,)", 9),
    ("x in (a,=)", 9),
    ("x y", 3),
    ("x in (a) b", 10),
    ("Site=berlin", 1),
    ("!9x", 2),
    ("x=-a", 3),
    ("x=ü", 3),
    ("ok=1, x=" + "a" * 64, 9),
    ("x===a", 4),
    ("a" * 33, 1),
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_selectors_of_kubernetes_are_accepted(text: str):
    assert plain(selectors.parse(text)) == reference(text)


@pytest.mark.parametrize(("text", "column"), REFUSED)
def test_selector_error_names_the_column(text: str, column: int):
    with pytest.raises(Invalid) as refused:
        selectors.parse(text, "$.filter.selector")
    [error] = refused.value.members["errors"]
    assert (error.path, error.column) == ("$.filter.selector", column)
    assert error.detail
    if text.strip():
        assert reference(text) is None


def test_selector_that_is_too_long_is_refused():
    with pytest.raises(Invalid, match="at most 4000"):
        selectors.parse(",".join(["a=b"] * 1001))


def test_requirements_name_what_they_compare():
    assert selectors.parse("a=1,b!=2,c in (y,x,y),d,!e,f>3,g<4") == (
        Requirement("a", Operator.IN, ("1",)),
        Requirement("b", Operator.NOT_IN, ("2",)),
        Requirement("c", Operator.IN, ("x", "y")),
        Requirement("d", Operator.EXISTS),
        Requirement("e", Operator.MISSING),
        Requirement("f", Operator.GREATER, ("3",)),
        Requirement("g", Operator.LESS, ("4",)),
    )


PIECES = [
    "a",
    "b",
    "in",
    "notin",
    "=",
    "==",
    "!=",
    "!",
    "(",
    ")",
    ",",
    "<",
    ">",
    " ",
    "\t",
    "7",
    "-",
    "é",
    "A",
    ".",
    "a1",
]


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("x in (a,,,)")
def test_any_text_is_read_or_refused_as_in_kubernetes(text: str):
    agrees_with_the_reference(text)


@settings(max_examples=500)
@given(st.text(max_size=30))
def test_any_unicode_text_is_read_or_refused_as_in_kubernetes(text: str):
    agrees_with_the_reference(text)


def agrees_with_the_reference(text: str) -> None:
    try:
        found = plain(selectors.parse(text))
    except Invalid as refused:
        [error] = refused.members["errors"]
        assert 1 <= error.column <= len(text) + 1
        found = None
    # Kubernetes takes an empty selector to mean every device; it is refused here.
    assert found == (reference(text) or None)


def plain(requirements: tuple[Requirement, ...]) -> label_selectors.Requirements:
    return [(found.key, found.operator.value, set(found.values)) for found in requirements]


def reference(text: str) -> label_selectors.Requirements | None:
    names = {"=": "in", "==": "in", "!=": "notin", "!": "missing", ">": "gt", "<": "lt"}
    try:
        return [(key, names.get(operator, operator), values) for key, operator, values in label_selectors.parse(text)]
    except label_selectors.Refused:
        return None
