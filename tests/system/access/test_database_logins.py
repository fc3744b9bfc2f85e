"""Try every statement of every function as the database login that the template gives to the function.

PostgreSQL checks the rights of a statement before it runs, so EXPLAIN, which runs nothing, checks them. The statements
of a function are found by the names in its code: the verbs it calls, the verbs they call, and the statements they name.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import CodeType, FunctionType, ModuleType
from typing import Any

import psycopg2
import pytest
from nexmdm.schema.grants import APP, DEVICE, OWNER, ROLES

from local import template as declared
from tests.support.api import ROOT
from tests.support.databases import url_of

FUNCTIONS = {function.name: function for function in declared.load().functions.values()}
LOGINS = {name: function.environment.get("DATABASE_USER", APP) for name, function in FUNCTIONS.items()}
# The functions that serve callers without AWS credentials.
OF_DEVICES = {route.function.name for route in declared.load().routes if route.authorizer == "NONE"}
STATEMENT = re.compile(r"\s*(?:--[^\n]*\n\s*)*(SELECT|INSERT|UPDATE|DELETE|WITH)\s", re.IGNORECASE)
NUMBER = re.compile("seconds|ttl|days|margin|lease")
PARAMETER = re.compile(r"%\((\w+)\)s")
# Parts of statements, or statements that are assembled at run time; suites that go through the gateway run those.
PARTS = (
    psycopg2.errors.SyntaxError,
    psycopg2.errors.UndefinedTable,
    psycopg2.errors.UndefinedColumn,
)


def modules(name: str) -> list[ModuleType]:
    folder = ROOT / "functions" / name
    found = [import_module(f"functions.{name}.{module.name}") for module in iter_modules([str(folder)])]
    return [import_module(f"functions.{name}"), *found]


def statements(name: str) -> dict[str, str]:
    """{location: statement} for every statement that the function's code can reach."""
    found: dict[str, str] = {}
    waiting = [value for module in modules(name) for value in vars(module).values() if _is_ours(value)]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, type):
            waiting += [each for each in vars(value).values() if _is_ours(each)]
            continue
        function = getattr(value, "__wrapped__", getattr(value, "fget", value))
        if not isinstance(function, FunctionType):
            continue
        for where, text in _texts(function):
            if STATEMENT.match(text):
                found[where] = text
        waiting += _named(function)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _texts(function: FunctionType) -> Iterator[tuple[str, str]]:
    for code in _codes(function.__code__):
        for constant in code.co_consts:
            if isinstance(constant, str):
                yield f"{function.__module__}.{function.__qualname__}: {constant[:40]!r}", constant
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, str):
                yield f"{function.__module__}.{name}", value


def _named(function: FunctionType) -> list[Any]:
    """What the names in the code can refer to: globals, and attributes of the modules and classes among them."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    holders = [value for value in values if isinstance(value, ModuleType | type) and _is_ours(value)]
    values += [getattr(holder, name) for holder in holders for name in names if hasattr(holder, name)]
    return [value for value in values if _is_ours(value)]


def _is_ours(value: Any) -> bool:
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    inner = getattr(value, "__wrapped__", getattr(value, "fget", value))
    module = getattr(inner, "__module__", module)
    return isinstance(module, str) and module.split(".")[0] in ("nexmdm", "functions")


@pytest.fixture(scope="module")
def connection(server: str, template: str) -> Iterator[Any]:
    connection = psycopg2.connect(url_of(server, template))
    yield connection
    connection.close()


def tried(connection: Any, login: str, statement: str, number: str = "NULL") -> Exception | None:
    """PostgreSQL's error for the statement under this login; None if it may run."""
    text = PARAMETER.sub(lambda found: number if NUMBER.search(found[1]) else "NULL", statement).replace("%%", "%")
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL ROLE {login}")
            cursor.execute(f"EXPLAIN {text}")
    except psycopg2.errors.AmbiguousFunction:  # NULL + NULL
        connection.rollback()
        return tried(connection, login, statement, "NULL::float8")
    except psycopg2.Error as error:
        return error
    finally:
        connection.rollback()
    return None


# Device functions write these columns themselves, so their login can do this too: a report of a failed installation
# pauses a rollout and restarts its count, a registration cancels the commands of the earlier phone, uses a token and
# gives a device its alias and labels.
ACCEPTED = {
    "nexmdm.builds.rollouts._PAUSE",
    "nexmdm.builds.rollouts._RESUME",
    "nexmdm.commands.batches._CANCEL_INSTALLS",
    "nexmdm.devices.imports._FREE_ALIASES",
    "nexmdm.devices.imports._WRITE",
    "nexmdm.enrollment.tokens._REVOKE",
}
ALL = {name: statements(name) for name in FUNCTIONS}


def test_statements_of_the_functions_are_found():
    everything = {text for found in ALL.values() for text in found.values()}
    assert len(everything) > 80
    assert not ALL["notify"]
    for name in OF_DEVICES - {"health"}:
        assert ALL[name], name


def test_functions_without_aws_credentials_use_the_device_login():
    assert OF_DEVICES
    assert {LOGINS[name] for name in OF_DEVICES} == {DEVICE}
    assert {LOGINS[name] for name in FUNCTIONS.keys() - OF_DEVICES} == {APP, OWNER}
    assert {name for name, login in LOGINS.items() if login == OWNER} == {"cleanup", "migrate"}


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if LOGINS[name] in ROLES])
def test_function_may_run_each_of_its_statements(connection, name: str):
    refused, parts = {}, []
    for where, statement in ALL[name].items():
        error = tried(connection, LOGINS[name], statement)
        if isinstance(error, psycopg2.errors.InsufficientPrivilege):
            refused[where] = str(error).strip()
        elif isinstance(error, PARTS):
            parts.append(where)
        elif error is not None:
            raise AssertionError(f"{where}: {error}")
    assert not refused
    assert len(parts) <= len(ALL[name]) / 2, parts


def test_device_login_cannot_write_what_only_operators_write(connection):
    own = {text for name in OF_DEVICES for text in ALL[name].values()}
    others = {
        where: text
        for name in FUNCTIONS.keys() - OF_DEVICES
        for where, text in ALL[name].items()
        if text not in own and re.search(r"\b(INSERT INTO|(?<!FOR )(?<!KEY )UPDATE|DELETE FROM)\s", text)
    }
    allowed = {where for where, text in others.items() if tried(connection, DEVICE, text) is None}
    assert allowed <= ACCEPTED
    assert len(others) > 20
