"""The rules of the house that no other tool checks: sizes, names, edges, what no committed file may say."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    "engine",
    "app",
    "workflows",
    "activities",
    "millrace",
    "migrations",
    "bench",
    "tests",
    "worker.py",
)
LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
SAYING_NOTHING = {"utils", "common", "helpers", "base", "core", "manager", "misc"}

# Where anything at all may be caught, because nothing is above it: requests, actions, commands, background loops,
# and the expression library, which raises what no other code does.
EDGES = {
    "app/inbox/dispatcher.py",
    "app/background.py",
    "app/main.py",
    "activities/registry.py",
    "app/cli/main.py",
    "engine/expression.py",
}
# The settings, and what hands the environment down to a child.
READS_THE_ENVIRONMENT = {"app/settings.py", "app/processes.py"}
TEXT_FILES = {".py", ".toml", ".md", ".txt", ".json", ".yaml", ".yml", ".cfg", ".ini", ""}
FOREIGN_PLACES = re.compile(
    "|".join(
        (
            r"pypi\." + "org",
            "python" + "hosted",
            r"^--?(extra-)?index" + "-url",
            r"^--find" + "-links",
            r"file:///(opt|home|root|srv|Users)\b",
            "registry" + r"\.npm",
        )
    ),
    re.MULTILINE,
)


def _python_files() -> list[Path]:
    files = [ROOT / name for name in SOURCES if name.endswith(".py")]
    for name in SOURCES:
        files += sorted((ROOT / name).rglob("*.py"))
    return [file for file in files if file.exists() and ".venv" not in file.parts]


def _place(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


FILES = _python_files()
TREES = {file: ast.parse(file.read_text()) for file in FILES}


def test_a_module_is_short_enough_to_read() -> None:
    lengths = {_place(file): len(file.read_text().splitlines()) for file in FILES}
    assert {place: length for place, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_a_function_fits_on_a_screen() -> None:
    lengths = {
        f"{_place(file)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file, node in _nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    }
    assert {function: length for function, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_a_name_says_something() -> None:
    named = {_place(file): {part.removesuffix(".py") for part in file.relative_to(ROOT).parts} for file in FILES}
    assert [place for place, parts in named.items() if parts & SAYING_NOTHING] == []


def test_a_package_has_no_code_of_its_own() -> None:
    packages = [file for file in FILES if file.name == "__init__.py"]
    assert [_place(file) for file in packages if not all(map(_is_text, TREES[file].body))] == []


def test_everything_is_caught_only_at_an_edge() -> None:
    found = {_place(file) for file, node in _nodes(ast.ExceptHandler) if _catches_everything(node)}
    assert {place for place in found if not place.startswith("tests/")} <= EDGES


def test_tables_are_declared_where_tables_are() -> None:
    assert {_place(file) for file, node in _nodes(ast.ClassDef) if _is_table(node)} == {
        "app/db/backfill_tables.py",
        "app/db/event_tables.py",
        "app/db/payload_tables.py",
        "app/db/schedule_tables.py",
        "app/db/tables.py",
    }


def test_nothing_is_replaced_behind_its_back() -> None:
    imported = {_place(file): set(_imported(TREES[file])) for file in FILES}
    mocks = re.compile(r"(unittest\.)?mock\b")
    assert [place for place, names in imported.items() if any(map(mocks.match, names))] == []


def test_the_environment_is_read_by_the_settings_alone() -> None:
    readers = {_place(file) for file, node in _nodes(ast.Attribute) if _reads_environment(node)}
    assert {place for place in readers if place.split("/")[0] not in {"tests", "bench"}} <= READS_THE_ENVIRONMENT


def test_a_test_is_named_by_a_sentence() -> None:
    names = [node.name for _, node in _nodes(ast.FunctionDef, ast.AsyncFunctionDef)]
    assert [name for name in names if name.startswith("test_") and len(name.split("_")) < 4] == []


def test_no_file_names_a_place_that_only_some_machine_has() -> None:
    found = {_place(file) for file in _text_files() if FOREIGN_PLACES.search(file.read_text(errors="replace"))}
    assert found == set()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_locked_version_is_exact_and_hashed(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text())
    pinned = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    assert pinned
    assert [
        entry for entry in pinned if not re.match(r"[A-Za-z0-9._-]+==\S+ (?:; [^\\\n]+ )?\\\n +--hash=sha256:", entry)
    ] == []


def test_the_development_lock_adds_to_the_other_and_contradicts_nothing() -> None:
    runtime, development = (_pins(name) for name in ("requirements.txt", "requirements-dev.txt"))
    assert runtime.items() <= development.items()


def _pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def _text_files() -> Iterator[Path]:
    ours = (
        *SOURCES,
        "examples",
        "docs",
        "deploy",
        ".ci",
        *(path.name for path in ROOT.iterdir() if path.is_file()),
    )
    for name in ours:
        top = ROOT / name
        for file in [top] if top.is_file() else top.rglob("*"):
            if file.is_file() and file.suffix in TEXT_FILES and not {"__pycache__", ".venv"} & set(file.parts):
                yield file


def _nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Path, Any]]:
    for file in FILES:
        for node in ast.walk(TREES[file]):
            if isinstance(node, kinds):
                yield file, node


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _catches_everything(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(
        each is None or (isinstance(each, ast.Name) and each.id in {"Exception", "BaseException"}) for each in caught
    )


def _is_table(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        keyword.arg == "table" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in node.keywords
    )


def _reads_environment(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in {"environ", "getenv", "environb"}
    )


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_a_command_starts_without_what_only_servers_need() -> None:
    """Whoever asks for a list waits for what is imported, each time."""
    heavy = ["sqlalchemy", "asyncpg", "temporalio", "fastapi", "jsonata", "alembic", "cryptography"]
    found = f"import app.cli.main, sys; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", found], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
