"""What must be known of a whole expression before it is rewritten: what its variables are bound to, and whether a
function could be (in) its result, which JSON has no place for and the library would hand over as null.
"""

from dataclasses import dataclass, field

from engine.builtins import CALL_ONLY, HIGHER_ORDER, SMALL
from engine.syntax import Node

MAX_POSITIONS = 1_000
_SCALAR_CHAINS = ("+", "*", "=", "and", "or")


@dataclass(slots=True)
class Survey:
    """Which variables the author binds, and which of them to functions written out and nothing else."""

    bound: set[str] = field(default_factory=set)
    other: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def only_functions(self, name: str) -> bool:
        """Whether a variable is bound to functions written out, and to nothing else."""
        return name in self.functions and name not in self.other

    def small(self, call: Node) -> bool:
        """Whether a call's result is small whatever it is given."""
        called = call.parts[0] if call.kind == "call" else call
        return called.kind == "variable" and called.text in SMALL and called.text not in self.bound

    def own(self, called: Node) -> bool:
        """Whether what is called may be a function of the author's own, which gives its arguments names."""
        return called.kind not in ("variable", "regex", "transform") or called.text in self.bound

    def weight(self, node: Node) -> int:
        """How many values of unknown size may stand side by side in the node's value."""
        match node.kind:
            case "string" | "number" | "value" | "regex" | "minus" | "lambda" | "placeholder":
                return 0
            case "bind":
                return 0  # weighed where it is bound
            case "array" | "object":
                return sum(map(self.weight, node.parts))
            case "chain":
                return 0 if node.text in _SCALAR_CHAINS else sum(map(self.weight, node.parts))
            case "condition" | "coalesce" | "elvis":
                return max(map(self.weight, node.parts))
            case "path" | "filter" | "keep" | "sort" | "focus" | "index":
                return max(1, self.weight(node.parts[0]))
            case "block":
                return self.weight(node.parts[-1]) if node.parts else 0
            case "call":
                return 0 if self.small(node) else max(1, sum(map(self.weight, node.parts[1:])))
            case "apply":
                left, right = node.parts
                return 0 if self.small(right) else self.weight(left) + self.weight(right)
            case _:
                return 1


def survey_of(tree: Node) -> Survey:
    """The survey of a whole expression."""
    survey = Survey()
    stack = [tree]
    while stack:
        node = stack.pop()
        stack.extend(node.parts)
        match node.kind:
            case "bind":
                survey.bound.add(node.text)
                (survey.functions if node.parts[0].kind == "lambda" else survey.other).add(node.text)
            case "focus" | "index":
                survey.bound.add(node.text)
                survey.other.add(node.text)
            case "lambda":
                survey.bound.update(node.words)
                survey.other.update(node.words)
            case _:
                pass
    return survey


def may_yield_function(tree: Node) -> bool:
    """Whether a function could be (in) the result: false when every one of them is called, or handed to a built-in
    that calls it.
    """
    survey = survey_of(tree)
    stack = [(tree, False)]
    while stack:
        node, consumed = stack.pop()
        if node.kind in ("lambda", "regex", "placeholder") and not consumed:
            return True
        if node.kind == "variable" and not consumed and _is_function_name(node.text, survey):
            return True
        stack.extend(_children(node, survey))
    return False


def _is_function_name(name: str, survey: Survey) -> bool:
    return name != "" and (name in survey.functions or name not in survey.bound)


def _children(node: Node, survey: Survey) -> list[tuple[Node, bool]]:
    """The parts of a node, each with whether a function is harmless there."""
    if node.kind == "block":
        kept = [
            (part.parts[0], True) if part.kind == "bind" and part.parts[0].kind == "lambda" else (part, False)
            for part in node.parts[:-1]
        ]
        return [*kept, *((part, False) for part in node.parts[-1:])]
    if node.kind == "apply":
        return [(node.parts[0], False), (node.parts[1], node.parts[1].kind not in ("regex", "block"))]
    if node.kind != "call":
        return [(part, False) for part in node.parts]
    called, *arguments = node.parts
    eats = called.kind == "variable" and called.text in HIGHER_ORDER and called.text not in survey.bound
    return [(called, True), *((argument, eats) for argument in arguments)]


def fixed_positions(node: Node) -> str | None:
    """The text of a list of positions that is written out in numbers, such as `[[0..9]]` and `[[0, -1]]`, when it
    picks no item twice; None for anything else.
    """
    if node.kind != "array":
        return None
    positions: list[int] = []
    written: list[str] = []
    for part in node.parts:
        bounds = [_whole(bound) for bound in (part.parts if part.kind == "range" else [part])]
        if None in bounds:
            return None
        low, high = bounds[0] or 0, bounds[-1] or 0
        if high - low >= MAX_POSITIONS:
            return None
        positions.extend(range(low, high + 1))
        written.append("..".join(map(str, bounds)))
    if len(set(positions)) != len(positions) or len(positions) > MAX_POSITIONS:
        return None
    return f"[{','.join(written)}]"


def _whole(node: Node) -> int | None:
    if node.kind == "minus":
        positive = _whole(node.parts[0])
        return None if positive is None else -positive
    return int(node.text) if node.kind == "number" and node.text.isdecimal() else None


def misplaced_bind(tree: Node) -> Node | None:
    """An assignment that is neither a line of a block, a function's body, a branch there, nor assigned on.

    It would be seen outside of the place where it stands, which a rewritten expression cannot promise.
    """
    stack = [(tree, True)]
    while stack:
        node, line = stack.pop()
        if node.kind == "bind" and not line:
            return node
        match node.kind:
            case "block" | "lambda":
                stack.extend((part, True) for part in node.parts)
            case "bind":
                stack.append((node.parts[0], node.parts[0].kind == "bind"))
            case "condition":
                stack.append((node.parts[0], False))
                stack.extend((part, line) for part in node.parts[1:])
            case _:
                stack.extend((part, False) for part in node.parts)
    return None


def special_call(node: Node) -> tuple[str, list[Node]] | None:
    """A call of a built-in that is rewritten, in whichever way it is written: `$f(x, y)`, `x ~> $f(y)`, `x ~> $f`."""
    first: list[Node] = []
    call = node
    if node.kind == "apply":
        first, call = [node.parts[0]], node.parts[1]
    called = call.parts[0] if call.kind == "call" else call
    if called.kind != "variable" or called.text not in CALL_ONLY:
        return None
    return called.text, first + (call.parts[1:] if call.kind == "call" else [])


def climbs(node: Node) -> bool:
    """Whether `%` stands anywhere in the node."""
    stack = [node]
    while stack:
        node = stack.pop()
        if node.kind == "parent":
            return True
        stack.extend(node.parts)
    return False
