"""Check the house rules against the sources: import order, no work at import, import budgets, no secrets compared."""

import ast
import json
import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from local import template
from tests.support.api import ROOT

LAYER = ROOT / "layers/nexmdm/src/nexmdm"
FUNCTIONS = sorted(path.name for path in (ROOT / "functions").iterdir() if (path / "handler.py").exists())
# A package may import itself and the packages named here, listed from the bottom of the import order.
MAY_IMPORT = {
    "runtime": set(),
    "activity": {"runtime"},
    "devices": {"runtime", "activity"},
    "commands": {"runtime", "activity", "devices"},
    "heartbeats": {"runtime", "activity", "devices", "commands"},
    "builds": {"runtime", "activity", "devices", "commands"},
    "enrollment": {"runtime", "activity", "devices", "commands", "heartbeats", "builds"},
    "alerts": {"runtime", "activity", "devices", "commands", "heartbeats", "builds"},
    "retention": {"runtime", "activity", "devices", "commands", "heartbeats", "builds", "enrollment", "alerts"},
    # Only the migration uses its check and its roles; only `persistence` may import its models.
    "schema": {"runtime", "devices", "heartbeats"},
}
# botocore's own __init__ takes a millisecond and comes with Powertools; only a session is expensive.
HEAVY = {
    "firebase_admin",
    "google",
    "boto3",
    "botocore.session",
    "alembic",
    "sqlalchemy",
    "pydantic",
    "requests",
    "urllib.request",
}
# The signer of database logins, which the warm-up loads, imports urllib.request.
SIGNER = {"urllib.request"}
# After import and warm-up. Modules that few calls need are loaded by those calls: boto3 in apk_builds, watch, cleanup.
MAY_LOAD = {
    "heartbeat": SIGNER,
    "enrollment": SIGNER,
    "registration": SIGNER,
    "device_reports": SIGNER,
    "fleet": SIGNER,
    "alerts": SIGNER,
    "apk_builds": SIGNER,
    "fcm_dispatch": SIGNER | {"firebase_admin", "google", "requests"},
    "apk_download": SIGNER | {"botocore.session"},
    "migrate": {"alembic", "sqlalchemy", "urllib.request"},
}


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> set[str]:
    """The dotted names of everything a module imports, at any depth; `from a import b` is a.b."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} uses a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def package(path: Path) -> str:
    return path.relative_to(LAYER).parts[0] if path.parent != LAYER else path.stem


# --- import order


@pytest.mark.parametrize("path", modules(LAYER), ids=lambda path: "/".join(path.parts[-2:]))
def test_layer_package_imports_only_packages_below_it(path):
    own = package(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in ("functions", "migrations", "local", "cli", "tests"), f"{path} imports {name}"
        if top != "nexmdm" or not rest or own == "persistence":
            continue
        assert not name.startswith("nexmdm.schema.models") or own == "schema", f"{path} imports {name}"
        other = rest.partition(".")[0]
        assert other == own or other in MAY_IMPORT[own], f"{path}: {own} imports {name}"


def test_every_layer_package_is_listed_in_the_import_order():
    packages = {path.name for path in LAYER.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages <= set(MAY_IMPORT), "add the missing package to MAY_IMPORT"
    for name, below in MAY_IMPORT.items():
        assert not any(name in MAY_IMPORT[other] for other in below), f"{name} is part of an import cycle"


def dotted(path: Path) -> str:
    return ".".join(("nexmdm", *path.relative_to(LAYER).with_suffix("").parts)).removesuffix(".__init__")


def cycle(folder: Path, prefix: str) -> dict[str, set[str]]:
    """The modules of a folder that import each other in a cycle; empty if there is none."""

    def named(path: Path) -> str:
        return ".".join((prefix, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")

    names = {named(path) for path in modules(folder)}

    def module(name: str) -> str:
        while name not in names:
            name = name.rpartition(".")[0]
        return name

    graph = {
        named(path): {module(name) for name in imports(path) if name.startswith(f"{prefix}.")} - {named(path)}
        for path in modules(folder)
    }
    while leaves := {name for name, needs in graph.items() if not needs}:
        graph = {name: needs - leaves for name, needs in graph.items() if name not in leaves}
    return graph


def test_layer_has_no_import_cycle():
    assert cycle(LAYER, "nexmdm") == {}


@pytest.mark.parametrize("name", ["gateway", "postgres", "fleet", "fcm"])
def test_local_package_has_no_import_cycle(name):
    assert cycle(ROOT / "local" / name, f"local.{name}") == {}


@pytest.mark.parametrize("path", modules(ROOT / "functions"), ids=lambda path: "/".join(path.parts[-2:]))
def test_function_imports_only_the_layer_and_itself(path):
    own = f"functions.{path.parent.name}"
    for name in imports(path):
        top = name.partition(".")[0]
        assert top not in ("local", "cli", "tests"), f"{path} imports {name}"
        assert top != "functions" or name.startswith(own), f"{path} imports {name}, another function"
        assert top != "migrations" or own == "functions.migrate", f"{path} imports {name}"


def test_only_migrations_and_migrate_import_migrations():
    for folder in ("layers", "functions", "local", "cli"):
        for path in modules(ROOT / folder):
            if path.parent.name != "migrate":
                assert not any(name.split(".")[0] == "migrations" for name in imports(path)), path


def test_cli_imports_nothing_from_the_repository_and_no_database_driver():
    """pipx installs the command alone: neither the repository nor a database driver is available then."""
    for path in modules(ROOT / "cli"):
        for name in imports(path):
            top = name.partition(".")[0]
            assert top not in ("nexmdm", "functions", "local", "migrations", "tests", "psycopg2"), f"{path}: {name}"


def test_no_test_module_imports_another():
    """Shared code belongs in tests/support, under one name; pytest provides fixtures without an import."""
    for path in modules(ROOT / "tests"):
        if path == ROOT / "tests" / "conftest.py":
            continue
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] != "tests" or not {part for part in parts if part.startswith(("test_", "conftest"))}, (
                f"{path.relative_to(ROOT)} imports {name}: move what both need to tests/support"
            )


def product_modules() -> list[Path]:
    return modules(LAYER) + modules(ROOT / "functions")


def test_only_settings_reads_the_environment():
    for path in product_modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb", "putenv"):
                assert path == LAYER / "runtime/settings.py", f"{path}:{node.lineno}"
        assert not any(name in ("os.environ", "os.getenv") for name in imports(path)), path


SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|ALTER TABLE|DROP TABLE)\s+\S", re.DOTALL)
# In the runtime only these contain SQL; in the other packages, all but those that read requests or build messages.
SQL_IN_RUNTIME = {"database"}
NO_SQL = {"body", "message", "actions", "urls"}


def texts(path: Path) -> list[ast.Constant]:
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False)
    }
    nodes = (n for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return [node for node in nodes if id(node) not in documented]


def test_sql_is_only_in_verb_modules_and_migrations():
    for path in product_modules():
        if path.is_relative_to(LAYER) and (
            path.stem in SQL_IN_RUNTIME if package(path) == "runtime" else path.stem not in NO_SQL
        ):
            continue
        for text in texts(path):
            assert not SQL.search(text.value), f"{path}:{text.lineno}"


def test_only_the_database_module_commits():
    for path in product_modules():
        if path == LAYER / "runtime/database.py":
            continue
        for node in ast.walk(tree(path)):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr
            assert called != "commit", f"{path}:{node.lineno}"
        assert not any(re.search(r"\b(COMMIT|ROLLBACK)\b", text.value) for text in texts(path)), path


@pytest.mark.parametrize("name", FUNCTIONS)
def test_handler_has_no_try_around_its_verbs(name):
    for node in ast.walk(tree(ROOT / "functions" / name / "handler.py")):
        # A route's decorator is a call; the handler of an event has a `finally` that flushes its metrics.
        if isinstance(node, ast.FunctionDef) and any(isinstance(each, ast.Call) for each in node.decorator_list):
            assert not any(isinstance(inner, ast.Try) for inner in ast.walk(node)), f"{name}: {node.name}"


SECRET = re.compile(r"(token|secret|password|hmac|signature)(?![a-z_])", re.IGNORECASE)  # token_id is not a secret


def test_no_secret_is_compared_with_the_equals_operator():
    """A comparison that takes longer the more characters agree helps an attacker. PostgreSQL compares the hashes."""
    for path in [*product_modules(), ROOT / "local/gateway/signature.py"]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                words = [ast.unparse(side) for side in (node.left, *node.comparators) if not is_constant(side)]
                assert not (len(words) == 2 and any(map(SECRET.search, words))), f"{path}:{node.lineno}"


def is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant | ast.List | ast.Tuple | ast.Set | ast.Compare)


def calls(node: ast.AST) -> list[str]:
    """The dotted names of what a node calls."""
    return [ast.unparse(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)]


# `migrate` stops before its end by itself, and `notify` uses no database.
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"migrate", "notify"}))
def test_database_deadline_is_set_in_every_function_that_uses_the_database(name):
    module = tree(ROOT / "functions" / name / "handler.py")
    began = [calls(node) for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    for called in began:
        assert called.count("database.begin") == called.count("logs.begin")
    # Routes.handle begins the invocation of an API function.
    assert any("database.begin" in called for called in began) or any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "routes.handle" for node in ast.walk(module)
    )
    [handle] = [
        node
        for node in ast.walk(tree(LAYER / "runtime" / "http.py"))
        if isinstance(node, ast.FunctionDef) and node.name == "handle"
    ]
    assert "database.begin" in calls(handle)


# --- nothing happens at import


LOOK = """
import json, socket, sys
def refuse(*_, **__): raise AssertionError("a module opened a socket at import")
socket.socket.connect = socket.socket.connect_ex = refuse
import psycopg2
psycopg2.connect = refuse
for name in sys.argv[1:]:
    __import__(name)
print(json.dumps(sorted(sys.modules)))
"""


def after_importing(*names: str, **environment: str) -> set[str]:
    """The modules loaded in a fresh process with an empty environment and without network access."""
    found = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ} | environment
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *names], cwd=ROOT, env=found, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 1, "a module printed something at import"
    return set(json.loads(lines[0]))


def test_every_module_is_imported_without_an_environment():
    names = [dotted(path) for path in modules(LAYER) if path.stem != "__main__"]
    names += [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules(ROOT / "functions")]
    after_importing(*(name.removesuffix(".__init__") for name in names))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_loads_exactly_its_import_budget(name):
    in_lambda = {"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "DATABASE_URL": "postgresql://nowhere.invalid/db"}
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-1"}
    loaded = after_importing(f"functions.{name}.handler", **in_lambda, **keys)
    # The function must load all of its budget; an unused allowance would hide that a later change loads more.
    assert loaded & HEAVY == MAY_LOAD.get(name, set())
    assert after_importing(f"functions.{name}.handler") & HEAVY == (loaded & HEAVY if name == "migrate" else set())
    assert not loaded & {"local", "tests", "migrations"} or name == "migrate"
    # Functions that answer requests log in during initialization, because a device or an operator waits for them.
    assert "botocore.auth" in loaded or not any(route.function.name == name for route in template.load().routes)


def test_import_budget_detects_an_extra_module():
    assert {"sqlalchemy", "boto3"} <= after_importing("nexmdm.schema.models", "boto3")


# --- template


@pytest.mark.parametrize("name", FUNCTIONS)
def test_routes_of_a_function_match_the_template(name):
    declared = {route.key for route in template.load().routes if route.function.name == name}
    found = getattr(import_module(f"functions.{name}.handler"), "routes", None)
    assert (set(found.table) if found else set()) == declared


def test_functions_in_the_tree_match_the_template():
    declared = template.load().functions
    assert sorted(declared) == FUNCTIONS
    for name, function in declared.items():
        assert function.handler == f"functions.{name}.handler.handler"


# --- what is committed


MACHINES = re.compile(
    r"/work/|/home/\w+/|/root/|/Users/\w+|\.\./shared|/tmp/\w|\b10\.\d+\.\d+\.\d+:\d+|--(?:extra-)?index-url\s+http"
    r"|https?://[\w.-]*(?:pypi|artifactory|nexus|jfrog|mirror)[\w.-]*/(?:simple|repository)"
)
EXEMPT = {"tests/test_house.py"}


def test_committed_files_name_no_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    for name in set(listed.stdout.splitlines()) - EXEMPT:
        path = ROOT / name
        if path.is_file():
            text = path.read_bytes().decode(errors="replace")
            found = MACHINES.search(text)
            assert not found, f"{name}: {found[0]}"
