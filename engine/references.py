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
from dataclasses import dataclass, replace

from engine.builtins import CALL_ONLY, FORBIDDEN
from engine.syntax import Node
from engine.tokens import invalid

KEYED_ROOTS = {"__steps__": "step", "__datasources__": "datasource", "__variables__": "variable"}
ROOTS = frozenset(KEYED_ROOTS) | {
    "__context__", "__each__", "__index__", "__iteration__", "__trigger__", "__execution__", "__error__",
    "__child__", "__previous__", "__result__",
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
    """One place where a reference stands: the node of its root, and whether it may never be evaluated."""

    node: Node
    reference: Reference
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
        match node.kind:
            case "name" | "quoted":
                self._name(node, place)
            case "variable":
                self._variable(node, place, called=False)
            case "wildcard" | "descendant" | "parent":
                self._relative(node, place, f"{node.text!r} looks into an item")
            case "regex":
                _check_regex(node)
            case "path":
                self._path(node, place)
            case "chain":
                self._chain(node, place)
            case "filter" | "sort" | "group" | "transform":
                self._over_items(node, place)
            case "bind" | "focus" | "index" | "lambda":
                self._binding(node, place)
            case "condition" | "coalesce" | "elvis":
                self._choice(node, place)
            case "call":
                self._call(node, place)
            case "apply":
                self._apply(node, place)
            case _:
                for part in node.parts:
                    self.scan(part, place)

    def _name(self, node: Node, place: _Place) -> None:
        if node.kind == "name" and node.text in ROOTS:
            if node.text in KEYED_ROOTS:
                what = KEYED_ROOTS[node.text]
                raise invalid(f"name the {what}: {node.text}.{what.capitalize()}Name; all of them at once", node.at)
            self._use(node, (), place)
        elif node.kind == "name" and node.text.startswith("__"):
            raise invalid(f"there is no {node.text}; an expression can see {', '.join(sorted(ROOTS))}", node.at)
        else:
            hint = f"write __context__.{node.text}" if node.kind == "name" else "begin with __context__"
            self._relative(node, place, f"{node.text!r} is always undefined here; {hint}:")

    def _relative(self, node: Node, place: _Place, message: str) -> None:
        if not place.relative:
            raise invalid(f"{message} there is no item here that it could be relative to", node.at)

    def _variable(self, node: Node, place: _Place, called: bool) -> None:
        name = node.text
        if name == "":
            self._relative(node, place, "'$' is the item at hand;")
        elif name == "$" or name.startswith("$"):
            raise invalid("'$$' is not available; begin with __context__ or another root", node.at)
        elif name.startswith("__"):
            raise invalid("a variable's name cannot begin with two underscores; roots take no '$'", node.at)
        elif name in FORBIDDEN:
            raise invalid(f"${name} is not available: {FORBIDDEN[name]}", node.at)
        elif name in CALL_ONLY and not called:
            raise invalid(f"${name} can only be called, not passed on or redefined", node.at)

    def _use(self, node: Node, path: tuple[str, ...], place: _Place) -> None:
        if self._guarding:
            self.guards.add(node)
        self.uses.append(Use(node, Reference(node.text, path, not place.optional), place.lazy))

    def _path(self, node: Node, place: _Place) -> None:
        first, *rest = node.parts
        if first.kind == "name" and first.text in ROOTS:
            _check_first_member(first, rest[0])
            self._use(first, _static_path(rest), place)
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


def _check_regex(node: Node) -> None:
    """Patterns that need backtracking take exponential time; without them the library's matcher is linear."""
    if len(node.text) > 1_000:
        raise invalid("a regular expression is longer than 1,000 characters", node.at)
    if _BACKTRACKING.search(node.text):
        raise invalid("a regular expression uses look-around, back references or possessive repetition", node.at)
