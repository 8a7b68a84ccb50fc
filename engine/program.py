"""An expression made ready: its text for the library, what it needs to be handed, and what must exist.

A program is plain data, worked out once for each text and shared by all threads; the library's own compiled objects
are another matter (`engine.expression`). There are two texts when some references stand behind conditions: the usual
one, and one that asks `$__need(n)` before each of them, which is used only when one of them is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engine.errors import ExpressionError
from engine.instrument import Instrumented, instrument
from engine.json_types import UNDEFINED
from engine.references import ROOTS, Reference, references_of, uses_in
from engine.syntax import Node, parse

MAX_SOURCE_BYTES = 8_192
Path = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Program:
    """`plain` and `careful` are the two texts; `handed` are the paths to hand over, none of which is a part of
    another; `strict` must exist before anything runs, `lazy` when they are reached; `direct` is set when the
    expression is nothing but a path of names.
    """

    references: tuple[Reference, ...]
    plain: Instrumented
    careful: Instrumented
    handed: tuple[Path, ...]
    strict: tuple[Reference, ...]
    lazy: tuple[Reference, ...]
    direct: Reference | None


@lru_cache(maxsize=4096)
def program_of(source: str) -> Program:
    """Reads an expression. Raises `ExpressionError` EXPRESSION_INVALID."""
    _check_size(source)
    try:
        return _read(source)
    except RecursionError:
        raise ExpressionError("EXPRESSION_INVALID", "the expression is nested too deeply") from None


def _read(source: str) -> Program:
    tree = parse(source)
    uses = uses_in(tree)
    lazy = [use for use in uses if use.lazy and use.reference.required]
    strict = {use.reference: None for use in uses if use.reference.required and not use.lazy}
    plain = instrument(tree, {})
    return Program(
        references=references_of(uses),
        plain=plain,
        careful=instrument(tree, {use.node: number for number, use in enumerate(lazy)}) if lazy else plain,
        handed=_without_parts({(use.reference.root, use.reference.path[: use.cut]) for use in uses}),
        strict=tuple(strict),
        lazy=tuple(use.reference for use in lazy),
        direct=uses[0].reference if _is_direct(tree) else None,
    )


def _check_size(source: str) -> None:
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        raise ExpressionError("EXPRESSION_INVALID", "the expression is not Unicode text") from None
    if size > MAX_SOURCE_BYTES:
        raise ExpressionError("EXPRESSION_INVALID", f"the expression is longer than {MAX_SOURCE_BYTES} bytes")


def _without_parts(paths: set[Path]) -> tuple[Path, ...]:
    """The paths that do not lead into another one: the other one hands them over with it."""
    return tuple(
        (root, path)
        for root, path in sorted(paths)
        if not any((root, path[:length]) in paths for length in range(len(path)))
    )


def _is_direct(tree: Node) -> bool:
    first = tree.parts[0] if tree.kind == "path" else tree
    names = tree.parts[1:] if tree.kind == "path" else []
    return (
        first.kind == "name"
        and first.text in ROOTS
        and all(part.kind in ("name", "quoted", "string") for part in names)
    )


def exists(reference: Reference, scope: Mapping[str, object]) -> bool:
    """Whether there is anything, null included, where a reference points. A list is searched item by item, as
    JSONata does; an empty list leaves nothing to be missed.
    """
    return _reaches(scope.get(reference.root, UNDEFINED), reference.path)


def _reaches(value: Any, path: tuple[str, ...]) -> bool:
    for index, member in enumerate(path):
        if isinstance(value, list):
            return not value or any(_reaches(item, path[index:]) for item in value)
        if not isinstance(value, Mapping) or member not in value:
            return False
        value = value[member]
    return value is not UNDEFINED


def gather(program: Program, scope: Mapping[str, object]) -> tuple[dict[str, object], list[object]]:
    """What to hand over: by root, cut down to what is referred to; and the values in it, to be looked at.

    A persistent map that is handed over whole becomes a dict in order of its keys: its own order differs between
    processes.
    """
    roots: dict[str, object] = {}
    leaves: list[object] = []
    for root, path in program.handed:
        value: Any = scope.get(root, UNDEFINED)
        if value is UNDEFINED:
            continue
        if path and isinstance(value, Mapping):
            _copy_path(value, path, roots.setdefault(root, {}), leaves)
        else:
            roots[root] = plain = _plain(value)
            leaves.append(plain)
    return roots, leaves


def _copy_path(value: Any, path: tuple[str, ...], target: Any, leaves: list[object]) -> None:
    """Copies the one path below a value that is itself a mapping; a list on the way is handed over whole."""
    last = len(path) - 1
    for index, member in enumerate(path):
        if not isinstance(value, Mapping) or member not in value:
            return
        value = value[member]
        if value is UNDEFINED:
            return
        if index == last or isinstance(value, list):
            if index < last or member not in target:
                target[member] = plain = _plain(value)
                leaves.append(plain)
            return
        target = target.setdefault(member, {})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return dict(sorted(value.items()))
    return value
