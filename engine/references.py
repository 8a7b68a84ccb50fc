"""What an expression refers to, and what it must not do: read off the syntax tree, before anything runs.

Three questions are answered for every reference to a root of the scope (`__context__`, `__steps__` …):

* *May it be there?* A root of named members must name one (`__steps__.fetch`), because only then can we hand over
  just that member and tell whether it exists.
* *Must it exist?* Not under `$exists(…)` nor on the left of `??` and `?:`; nor where the same path also stands under
  `$exists` in the same expression, which is how authors guard.
* *When must it exist?* At once, or, behind a condition (a branch, the right of `and`/`or`, a function's body, a step
  or predicate that may run for no item at all), only when it is evaluated: then it is `lazy`.

Roots are rewritten to variables, so they mean the same everywhere, also inside predicates and functions where a name
is relative to the item at hand. A relative name where there is no item would always be undefined, so it is refused.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.builtins import CALL_ONLY, FORBIDDEN
from engine.syntax import Kind, Node
from engine.tokens import invalid

KEYED_ROOTS = {"__steps__": "step", "__datasources__": "datasource", "__variables__": "variable"}
ROOTS = frozenset(KEYED_ROOTS) | {
    "__context__", "__each__", "__index__", "__iteration__", "__trigger__", "__execution__", "__error__",
    "__child__", "__previous__", "__result__", "__results__", "__counts__",
}  # fmt: skip

_NAMES = ("name", "quoted", "string")
_BACKTRACKING = re.compile(r"\(\?(?!:|P?<[A-Za-z_]|[a-zA-Z-]+[:)])|\\[1-9kgGKRXZ]|[*+?}]\+")


@dataclass(frozen=True, slots=True)
class Reference:
    """A root and the member path after it, as far as it is static: `__steps__.fetch.result[0].x` refers to
    `("fetch", "result")`. `required` is False where the expression itself provides for its absence.
    """

    root: str
    path: tuple[str, ...]
    required: bool

    def __str__(self) -> str:
        return ".".join((self.root, *self.path))


@dataclass(frozen=True, slots=True)
class Use:
    """One place where a reference stands: the node of its root, how many members of its path are handed over cut
    down to the path, and whether it may never be evaluated.
    """

    node: Node
    reference: Reference
    cut: int
    lazy: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """What surrounds a node: is there an item that names are relative to; may it be skipped; may it be absent."""

    relative: bool = False
    lazy: bool = False
    optional: bool = False

    def skipped(self) -> "_Place":
        return self if self.lazy else replace(self, lazy=True)

    def inside(self) -> "_Place":
        return replace(self, relative=True, lazy=True)

    def forgiving(self) -> "_Place":
        return replace(self, optional=True)


def uses_in(tree: Node) -> tuple[Use, ...]:
    """Every reference of an expression, in order of the text.

    Raises `ExpressionError` EXPRESSION_INVALID for a reference that cannot be followed, a name that is relative to
    nothing, and functions that would make the result depend on anything but the scope.
    """
    scanner = _Scanner()
    scanner.scan(tree, _Place())
    guarded = {(use.reference.root, use.reference.path) for use in scanner.uses if use.node in scanner.guards}
    return tuple(
        replace(use, reference=replace(use.reference, required=False))
        if (use.reference.root, use.reference.path) in guarded
        else use
        for use in scanner.uses
    )


def references_of(uses: tuple[Use, ...]) -> tuple[Reference, ...]:
    """The distinct references, each required when any of its uses is."""
    found: dict[tuple[str, tuple[str, ...]], bool] = {}
    for use in uses:
        key = (use.reference.root, use.reference.path)
        found[key] = found.get(key, False) or use.reference.required
    return tuple(Reference(root, path, required) for (root, path), required in found.items())


class _Scanner:
    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.guards: set[Node] = set()
        self._guarding = False

    def scan(self, node: Node, place: _Place) -> None:
        scan = _SCANS.get(node.kind)
        if scan is not None:
            scan(self, node, place)
            return
        for part in node.parts:
            self.scan(part, place)

    def _name(self, node: Node, place: _Place) -> None:
        if node.kind == "name" and node.text in ROOTS:
            if node.text in KEYED_ROOTS:
                what = KEYED_ROOTS[node.text]
                raise invalid(f"{node.text} is no value of its own; name the {what}", node.at)
            self._use(node, (), place)
        elif node.kind == "name" and node.text.startswith("__"):
            raise invalid(f"there is no {node.text}; an expression can see {', '.join(sorted(ROOTS))}", node.at)
        else:
            hint = f"write __context__.{node.text}" if node.kind == "name" else "begin with __context__"
            _check_item(node, place, f"{node.text!r} is always undefined here; {hint}")

    def _item(self, node: Node, place: _Place) -> None:
        _check_item(node, place, f"{node.text!r} looks at an item")

    def _regex(self, node: Node, place: _Place) -> None:
        _check_regex(node)

    def _variable(self, node: Node, place: _Place, called: bool = False) -> None:
        name = node.text
        if name == "":
            _check_item(node, place, "'$' is the item at hand")
        elif name == "$" or name.startswith("$"):
            raise invalid("'$$' is not available; begin with __context__ or another root", node.at)
        elif name.startswith("__"):
            raise invalid("a variable's name cannot begin with two underscores; roots take no '$'", node.at)
        elif name in FORBIDDEN:
            raise invalid(f"${name} is not available: {FORBIDDEN[name]}", node.at)
        elif name in CALL_ONLY and not called:
            raise invalid(f"${name} can only be called, not passed on or redefined", node.at)

    def _use(self, node: Node, path: tuple[str, ...], place: _Place, climbed: int = 0) -> None:
        if self._guarding:
            self.guards.add(node)
        if climbed and climbed >= len(path):
            raise invalid(f"'%' would climb to {node.text} itself", node.at)
        reference = Reference(node.text, path, not place.optional)
        self.uses.append(Use(node, reference, len(path) - climbed, place.lazy))

    def _path(self, node: Node, place: _Place) -> None:
        first, *rest = node.parts
        if first.kind == "name" and first.text in ROOTS:
            _check_first_member(first, rest[0])
            self._use(first, _static_path(rest), place, sum(map(_climbs, rest)))
        elif first.kind == "string":
            self._name(first, place)
        else:
            self.scan(first, place)
        for part in rest:
            self._step(part, place.inside())

    def _step(self, node: Node, place: _Place) -> None:
        if node.kind == "name" and node.text in ROOTS:
            raise invalid(f"{node.text} cannot be a step of a path; put it in parentheses", node.at)
        if node.kind in ("filter", "keep", "focus", "index"):
            self._step(node.parts[0], place)
            if node.kind in ("focus", "index"):
                self._binding_name(node)
            for part in node.parts[1:]:
                self._predicate(part, place)
        else:
            self.scan(node, place)

    def _predicate(self, node: Node, place: _Place) -> None:
        if node.kind == "string":
            raise invalid(f"brackets do not select a member; write .`{node.text}`", node.at)
        self.scan(node, place)

    def _chain(self, node: Node, place: _Place) -> None:
        self.scan(node.parts[0], place)
        short_circuits = node.text in ("and", "or")
        for part in node.parts[1:]:
            self.scan(part, place.skipped() if short_circuits else place)

    def _over_items(self, node: Node, place: _Place) -> None:
        first, *rest = node.parts
        self.scan(first, place.inside() if node.kind == "transform" else place)
        for part in rest:
            if node.kind == "filter":
                self._predicate(part, place.inside())
            else:
                self.scan(part, place.inside())

    def _binding(self, node: Node, place: _Place) -> None:
        self._binding_name(node)
        for part in node.parts:
            self.scan(part, place.skipped() if node.kind == "lambda" else place)

    def _binding_name(self, node: Node) -> None:
        for name in node.words if node.kind == "lambda" else [node.text]:
            if name == "" or name.startswith(("$", "__")):
                raise invalid(f"${name} cannot be a variable of your own", node.at)
            if name in CALL_ONLY or name in FORBIDDEN or name == "exists":
                raise invalid(f"${name} is built in and cannot be redefined", node.at)

    def _choice(self, node: Node, place: _Place) -> None:
        first, *rest = node.parts
        self.scan(first, place if node.kind == "condition" else place.forgiving())
        for part in rest:
            self.scan(part, place.skipped())

    def _call(self, node: Node, place: _Place) -> None:
        called, *arguments = node.parts
        if called.kind == "variable":
            self._variable(called, place, called=True)
            if called.text in CALL_ONLY and any(part.kind == "placeholder" for part in arguments):
                raise invalid(f"${called.text} cannot be called with '?'", node.at)
        elif called.kind == "name" and not place.relative:
            raise invalid(f"{called.text} is not a function; functions begin with '$'", node.at)
        else:
            self.scan(called, place)
        if called.kind == "variable" and called.text == "exists":
            self._guarded(arguments, place)
        else:
            for part in arguments:
                self.scan(part, place)

    def _guarded(self, parts: list[Node], place: _Place) -> None:
        before, self._guarding = self._guarding, True
        for part in parts:
            self.scan(part, place.forgiving())
        self._guarding = before

    def _apply(self, node: Node, place: _Place) -> None:
        left, right = node.parts
        called = right.parts[0] if right.kind == "call" else right
        if called.kind == "variable" and called.text == "exists":
            self._guarded([left], place)
        else:
            self.scan(left, place)
        if right.kind == "variable":
            self._variable(right, place, called=True)
        else:
            self.scan(right, place)


_SCANS: dict[Kind, Callable[[_Scanner, Node, _Place], None]] = {
    "name": _Scanner._name,
    "quoted": _Scanner._name,
    "variable": _Scanner._variable,
    "wildcard": _Scanner._item,
    "descendant": _Scanner._item,
    "parent": _Scanner._item,
    "regex": _Scanner._regex,
    "path": _Scanner._path,
    "chain": _Scanner._chain,
    "filter": _Scanner._over_items,
    "sort": _Scanner._over_items,
    "group": _Scanner._over_items,
    "transform": _Scanner._over_items,
    "bind": _Scanner._binding,
    "focus": _Scanner._binding,
    "index": _Scanner._binding,
    "lambda": _Scanner._binding,
    "condition": _Scanner._choice,
    "coalesce": _Scanner._choice,
    "elvis": _Scanner._choice,
    "call": _Scanner._call,
    "apply": _Scanner._apply,
}


def _check_item(node: Node, place: _Place, message: str) -> None:
    if not place.relative:
        raise invalid(f"{message}, and there is no item here that it could be relative to", node.at)


def _check_first_member(root: Node, member: Node) -> None:
    while member.kind in ("filter", "keep", "focus", "index"):
        member = member.parts[0]
    if root.text in KEYED_ROOTS and member.kind not in _NAMES:
        what = KEYED_ROOTS[root.text]
        raise invalid(f"{root.text} is followed by the name of a {what}", member.at)
    if root.text == "__context__" and member.kind in ("wildcard", "descendant"):
        raise invalid("__context__ is followed by the name of a member", member.at)


def _static_path(parts: list[Node]) -> tuple[str, ...]:
    """The names up to the first part that depends on the data."""
    path: list[str] = []
    for part in parts:
        base = part
        while base.kind in ("filter", "keep", "focus", "index"):
            base = base.parts[0]
        if base.kind not in _NAMES:
            break
        path.append(base.text)
        if part.kind == "filter":
            break
    return tuple(path)


def _climbs(node: Node) -> int:
    """How many levels `%` may climb in a node, at most: what it finds there must be handed over whole."""
    if node.kind == "parent":
        return 1
    levels = [_climbs(part) for part in node.parts]
    return sum(levels) if node.kind == "path" else max(levels, default=0)


def _check_regex(node: Node) -> None:
    """Patterns that need backtracking take exponential time; without them the library's matcher is linear."""
    if len(node.text) > 1_000:
        raise invalid("a regular expression is longer than 1,000 characters", node.at)
    if _BACKTRACKING.search(node.text):
        raise invalid("a regular expression uses look-around, back references or possessive repetition", node.at)
