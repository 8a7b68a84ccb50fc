"""From the syntax tree back to text for the library, with everything in it that keeps it in bounds.

The library has no hook to count what an expression does, so the counting is written into the expression: a function's
body begins with `$__tick()`, a value that gets a name (and so can be used twice, and doubled again) passes through
`($__1 := value; $__weigh($__1); $__1)`, a range becomes a call, a built-in with a disproportionate result is guarded.
What cannot grow is left alone, so a plain condition is handed on as it was written, with roots as variables.

Nothing of the author's text is copied but names, numbers and regular expressions, so what we read is what runs.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

from engine.builtins import GUARDED
from engine.references import ROOTS
from engine.survey import Survey, climbs, fixed_positions, may_yield_function, misplaced_bind, special_call, survey_of
from engine.syntax import Kind, Node
from engine.tokens import invalid

MAX_UNWEIGHED = 8
_PLAIN_STEPS = ("name", "quoted", "string", "wildcard", "parent")
_SUFFIXES = ("filter", "keep", "focus", "index")


@dataclass(frozen=True, slots=True)
class Instrumented:
    """Text for the library; `places` pairs offsets in it (in UTF-16 units, as the library counts) with places in the
    author's text.
    """

    text: str
    places: tuple[tuple[int, int], ...]


def instrument(tree: Node, checked: dict[Node, int]) -> Instrumented:
    """The text to evaluate in place of the author's. Before a root in `checked` is used, `$__need(number)` is called.

    Raises `ExpressionError` EXPRESSION_INVALID for a built-in that is called with too few arguments to be guarded,
    an assignment in the middle of an expression, and a `%` behind a step that it cannot look back through.
    """
    misplaced = misplaced_bind(tree)
    if misplaced is not None:
        raise invalid("an assignment stands on a line of its own, in parentheses", misplaced.at)
    writer = _Writer(survey_of(tree), checked)
    if may_yield_function(tree):
        writer.write("($__r:=", tree)
        writer.weighed(tree)
        writer.write(';$exists($__r.**[$type($)="function"])?$__function():$__r)', tree)
    else:
        writer.node(tree)
    return Instrumented("".join(writer.out), tuple(writer.places))


class _Writer:
    """Writes one tree. Each method writes one kind of node; blocks keep what they bind to themselves."""

    def __init__(self, survey: Survey, checked: dict[Node, int]) -> None:
        self.out: list[str] = []
        self.places: list[tuple[int, int]] = []
        self._length = 0
        self._survey = survey
        self._checked = checked
        self._variables = 0

    def write(self, text: str, node: Node) -> None:
        self.places.append((self._length, node.at))
        self.out.append(text)
        self._length += len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2

    def node(self, node: Node) -> None:
        write = _WRITES.get(node.kind)
        if write is None:
            self.write(node.text, node)
        else:
            write(self, node)

    def _string(self, node: Node) -> None:
        self.write(json.dumps(node.text), node)

    def _quoted(self, node: Node) -> None:
        self.write(f"`{node.text}`", node)

    def _variable(self, node: Node) -> None:
        self.write(f"${node.text}", node)

    def _constructor(self, node: Node) -> None:
        self._literal(node, self._survey.weight(node) > MAX_UNWEIGHED)

    def _minus(self, node: Node) -> None:
        self._list("-", node.parts, "", "", node)

    def _range(self, node: Node) -> None:
        self._list("$__range(", node.parts, ",", ")", node)

    def _block(self, node: Node) -> None:
        self._list("(", node.parts, ";", ")", node)

    def _list(self, opening: str, parts: Collection[Node], between: str, closing: str, node: Node) -> None:
        self.write(opening, node)
        for index, part in enumerate(parts):
            if index:
                self.write(between, part)
            self.node(part)
        self.write(closing, node)

    def _name(self, node: Node) -> None:
        if node.text not in ROOTS:
            self.write(node.text, node)
        elif node in self._checked:
            self.write(f"($__need({self._checked[node]});${node.text})", node)
        else:
            self.write(f"${node.text}", node)

    def _fresh(self) -> str:
        self._variables += 1
        return f"$__{self._variables}"

    def weighed(self, node: Node) -> None:
        """The node, weighed, unless it cannot be large or its parts are weighed already."""
        if self._survey.weight(node) == 0:
            self.node(node)
        elif node.kind == "array":
            # an array that is written out is not flattened into the one around it; in a block it would be
            self._literal(node, weigh_items=True)
        else:
            name = self._fresh()
            self.write(f"({name}:=", node)
            self.node(node)
            self.write(f";$__weigh({name});{name})", node)

    def _item(self, node: Node, weigh: bool) -> None:
        if weigh:
            self.weighed(node)
        else:
            self.node(node)

    def _literal(self, node: Node, weigh_items: bool) -> None:
        if node.kind == "object":
            self.write("{", node)
            self._pairs(node.parts, weigh_items)
            self.write("}", node)
            return
        self.write("[", node)
        for index, part in enumerate(node.parts):
            if index:
                self.write(",", part)
            if part.kind == "range":
                self.node(part)
            else:
                self._item(part, weigh_items)
        self.write("]", node)

    def _pairs(self, parts: list[Node], weigh: bool, grouped: bool = False) -> None:
        for index in range(0, len(parts), 2):
            key = parts[index]
            self.write("," if index else "", key)
            if grouped:
                self._list("($__group();", [key], "", ")", key)
            else:
                self.node(key)
            self.write(":", key)
            self._item(parts[index + 1], weigh)

    def _chain(self, node: Node) -> None:
        weigh = node.text == "&" and self._survey.weight(node) > MAX_UNWEIGHED
        self._item(node.parts[0], weigh)
        for word, part in zip(node.words, node.parts[1:], strict=True):
            self.write(f" {word} ", part)
            self._item(part, weigh)

    def _path(self, node: Node) -> None:
        first, *rest = node.parts
        self.node(first)
        for index, part in enumerate(rest):
            self.write(".", part)
            if any(map(climbs, rest[index + 1 :])):
                self._bare(part)
            else:
                self._step(part)

    def _bare(self, node: Node) -> None:
        """A step that a later `%` looks back through, which it can only do when the step is not wrapped; so it may
        hold nothing that would have to be weighed.
        """
        if node.kind in _PLAIN_STEPS:
            self.node(node)
        elif node.kind in _SUFFIXES:
            self._bare(node.parts[0])
            self._suffix(node)
        elif node.kind == "block" and len(node.parts) == 1:
            self.write("(", node)
            self._bare(node.parts[0])
            self.write(")", node)
        elif node.kind == "path":
            for index, part in enumerate(node.parts):
                self.write("." if index else "", part)
                self._bare(part)
        else:
            raise invalid("'%' cannot look back through this step", node.at)

    def _step(self, node: Node) -> None:
        """A step is evaluated for every item before it, so what it yields is weighed each time."""
        if node.kind in _SUFFIXES:
            self._suffixed(node, step=True)
        elif node.kind in _PLAIN_STEPS:
            self.node(node)
        else:
            self.weighed(node)

    def _suffixed(self, node: Node, step: bool = False) -> None:
        if step:
            self._step(node.parts[0])
        else:
            self.node(node.parts[0])
        self._suffix(node)

    def _suffix(self, node: Node) -> None:
        rest = node.parts[1:]
        match node.kind:
            case "keep":
                self.write("[]", node)
            case "focus":
                self.write(f"@${node.text}", node)
            case "index":
                self.write(f"#${node.text}", node)
            case "filter":
                self._predicate(rest[0])
            case "sort":
                self.write("^(", node)
                for index, (direction, term) in enumerate(zip(node.words, rest, strict=True)):
                    self.write(("," if index else "") + direction, term)
                    self.node(term)
                self.write(")", node)
            case _:
                self.write("{", node)
                self._pairs(rest, weigh=True, grouped=True)
                self.write("}", node)

    def _predicate(self, node: Node) -> None:
        self.write("[", node)
        fixed = fixed_positions(node)
        if fixed is not None:
            self.write(fixed, node)
        elif self._survey.weight(node) == 0 and node.kind not in ("array", "object"):
            self.node(node)
        else:
            name = self._fresh()
            self.write(f"({name}:=", node)
            self.node(node)
            self.write(f";$__pick({name});{name})", node)
        self.write("]", node)

    def _flow(self, node: Node) -> None:
        match node.kind:
            case "bind":
                self.write(f"${node.text}:=", node)
                self.weighed(node.parts[0])
            case "condition":
                self.node(node.parts[0])
                for word, part in zip("?:", node.parts[1:], strict=False):
                    self.write(word + " ", part)
                    self.node(part)
            case _:
                # the library would evaluate the left side twice, and twice again for every one nested in it
                name = self._fresh()
                self.write(f"({name}:=", node)
                self.node(node.parts[0])
                test = name if node.kind == "elvis" else f"$exists({name})"
                self.write(f";{test}?{name}: ", node)
                self.node(node.parts[1])
                self.write(")", node)

    def _lambda(self, node: Node) -> None:
        parameters = ",".join(f"${word}" for word in node.words)
        self.write(f"function({parameters}){node.text}{{($__tick();", node)
        self._result(node.parts[0])
        self.write(")}", node)

    def _result(self, node: Node) -> None:
        """What a function returns. A call there stays bare when it calls a function of the author's own, so that the
        library can still make a loop of it.
        """
        match node.kind:
            case "condition":
                self.node(node.parts[0])
                for word, part in zip("?:", node.parts[1:], strict=False):
                    self.write(word + " ", part)
                    self._result(part)
            case "block" if node.parts:
                self.write("(", node)
                for part in node.parts[:-1]:
                    self.node(part)
                    self.write(";", part)
                self._result(node.parts[-1])
                self.write(")", node)
            case "call" if node.parts[0].kind == "variable" and self._survey.only_functions(node.parts[0].text):
                self._call(node)
            case _:
                self.weighed(node)

    def _transform(self, node: Node) -> None:
        pattern, update, *delete = node.parts
        self.write("|", node)
        self.node(pattern)
        self.write("|", node)
        self._item(update, weigh=True)
        for part in delete:
            self.write(",", part)
            self.node(part)
        self.write("|", node)

    def _application(self, node: Node) -> None:
        special = special_call(node)
        if special is not None:
            self._special(node, *special)
        elif node.kind == "call":
            self._call(node)
        else:
            left, right = node.parts
            self._item(left, weigh=self._survey.own(right.parts[0] if right.kind == "call" else right))
            self.write(" ~> ", right)
            if right.kind == "call":
                self._call(right)
            else:
                self.node(right)

    def _call(self, node: Node) -> None:
        called, *arguments = node.parts
        weigh = self._survey.own(called) or sum(map(self._survey.weight, arguments)) > MAX_UNWEIGHED
        self.node(called)
        self.write("(", node)
        for index, argument in enumerate(arguments):
            if index:
                self.write(",", argument)
            self._item(argument, weigh)
        self.write(")", node)

    def _special(self, node: Node, name: str, arguments: list[Node]) -> None:
        if name in GUARDED:
            self._guarded(node, name, arguments)
            return
        if name == "now":
            now = Node("number", node.at, "$__now")
            self._guarded(node, "fromMillis", [now, *arguments])
        elif name == "shuffle":
            if len(arguments) != 1:
                raise invalid("$shuffle takes one list", node.at)
            items = self._fresh()
            self.write(f"({items}:=", node)
            self.node(arguments[0])
            self.write(f";$exists({items})?$__shuffle({items}):{items})", node)
        else:
            if arguments:
                raise invalid(f"${name} takes no arguments", node.at)
            self.write("$__now" if name == "millis" else f"$__{name}()", node)

    def _guarded(self, node: Node, name: str, arguments: list[Node]) -> None:
        if len(arguments) < GUARDED[name]:
            raise invalid(f"${name} needs {GUARDED[name]} arguments or more, the first of them included", node.at)
        names = [self._fresh() for _ in arguments]
        self.write("(", node)
        for variable, argument in zip(names, arguments, strict=True):
            self.write(f"{variable}:=", argument)
            self.node(argument)
            self.write(";", argument)
        listed = ",".join(names)
        self.write(f'$__guard("{name}",{listed});${name}({listed}))', node)


_WRITES: dict[Kind, Callable[[_Writer, Node], None]] = {
    "string": _Writer._string,
    "quoted": _Writer._quoted,
    "name": _Writer._name,
    "variable": _Writer._variable,
    "chain": _Writer._chain,
    "path": _Writer._path,
    "array": _Writer._constructor,
    "object": _Writer._constructor,
    "call": _Writer._application,
    "apply": _Writer._application,
    "lambda": _Writer._lambda,
    "filter": _Writer._suffixed,
    "keep": _Writer._suffixed,
    "focus": _Writer._suffixed,
    "index": _Writer._suffixed,
    "sort": _Writer._suffixed,
    "group": _Writer._suffixed,
    "bind": _Writer._flow,
    "condition": _Writer._flow,
    "coalesce": _Writer._flow,
    "elvis": _Writer._flow,
    "minus": _Writer._minus,
    "range": _Writer._range,
    "block": _Writer._block,
    "transform": _Writer._transform,
}
