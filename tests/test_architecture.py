"""The rules of the house that no other tool checks: sizes, names, edges, what no committed file may say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

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
each_file = pytest.mark.parametrize("file", FILES, ids=_place)


@each_file
def test_a_module_is_short_enough_to_read(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= LONGEST_MODULE


@each_file
def test_a_function_fits_on_a_screen(file: Path) -> None:
    too_long = [
        f"{node.name} ({length} lines)"
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert too_long == []


@each_file
def test_a_name_says_something(file: Path) -> None:
    assert not SAYING_NOTHING & {part.removesuffix(".py") for part in file.relative_to(ROOT).parts}


@each_file
def test_a_package_has_no_code_of_its_own(file: Path) -> None:
    if file.name == "__init__.py":
        assert [node for node in TREES[file].body if not _is_text(node)] == []


@each_file
def test_everything_is_caught_only_at_an_edge(file: Path) -> None:
    if _place(file) not in EDGES and not _place(file).startswith("tests/"):
        assert [node.lineno for node in ast.walk(TREES[file]) if _catches_everything(node)] == []


@each_file
def test_a_table_is_declared_in_one_place(file: Path) -> None:
    if _place(file) != "app/db/tables.py":
        assert [node.name for node in ast.walk(TREES[file]) if _is_table(node)] == []


@each_file
def test_nothing_is_replaced_behind_its_back(file: Path) -> None:
    names = set(_imported(TREES[file]))
    assert not [name for name in names if name == "mock" or name.startswith("unittest.mock")]


@each_file
def test_the_environment_is_read_by_the_settings_alone(file: Path) -> None:
    if _place(file).split("/")[0] in {"tests", "bench"} or _place(file) in READS_THE_ENVIRONMENT:
        return
    assert [node.lineno for node in ast.walk(TREES[file]) if _reads_environment(node)] == []


@each_file
def test_a_test_is_named_by_a_sentence(file: Path) -> None:
    tests = [
        node.name
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert [name for name in tests if len(name.split("_")) < 4] == []


def test_no_file_names_a_place_that_only_some_machine_has() -> None:
    found = {_place(file) for file in _text_files() if FOREIGN_PLACES.search(file.read_text(errors="replace"))}
    assert found == set()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_locked_version_is_exact_and_hashed(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text())
    pinned = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    assert pinned
    assert [entry for entry in pinned if not re.match(r"[A-Za-z0-9._-]+==\S+ \\\n +--hash=sha256:", entry)] == []


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
            if file.is_file() and file.suffix in TEXT_FILES and file.parent.name != "__pycache__":
                yield file


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
