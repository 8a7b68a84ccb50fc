"""The expression language's grammar: text to a syntax tree.

Only with a tree of our own can we say what an expression refers to and where its work must be counted, because the
library keeps its tree to itself. The binding powers are the library's. Long chains (`a.b.c`, `1 + 2 + 3`) are one
flat node; whatever else nests is counted, so that no text can exhaust a stack, ours or the library's: brackets, and the
depth of the tree, which also grows with every `~>`, assignment and `else`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from engine.tokens import Lexer, Token, invalid

MAX_CHAIN = 500
MAX_NESTING = 100
MAX_TREE_DEPTH = 200

Kind = Literal[
    "string", "number", "value", "regex", "name", "quoted", "variable", "wildcard", "descendant", "parent",
    "minus", "path", "chain", "apply", "array", "range", "object", "filter", "keep", "sort", "group", "focus",
    "index", "bind", "condition", "coalesce", "elvis", "call", "placeholder", "lambda", "block", "transform",
]  # fmt: skip


@dataclass(slots=True, eq=False)
class Node:
    """One place of the tree. `at` is where it stands in the text; what `text`, `parts` and `words` hold, by kind:

    leaves: their text · path, chain: operands, and for a chain the operators between as words · apply, range,
    coalesce, elvis: left and right · object: key, value, key, value … · filter: base and predicate · sort: base and
    terms, with "<", ">" or "" for each as words · group: base, key, value … · focus, index, bind: the variable as
    text · condition: test, then, else? · call: what is called, arguments … · lambda: parameters as words, signature
    as text, body · transform: pattern, update, delete?
    """

    kind: Kind
    at: int
    text: str = ""
    parts: list["Node"] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    depth: int = 1


_POWER = {
    ".": 75, "[": 80, "(": 80, "@": 80, "#": 80, "{": 70, "*": 60, "/": 60, "%": 60, "+": 50, "-": 50, "&": 50,
    "=": 40, "!=": 40, "<": 40, "<=": 40, ">": 40, ">=": 40, "in": 40, "~>": 40, "^": 40, "?:": 40, "??": 40,
    "and": 30, "or": 25, "?": 20, ":=": 10,
}  # fmt: skip
_FAMILY = {
    "+": "+", "-": "+", "*": "*", "/": "*", "%": "*", "&": "&", "and": "and", "or": "or", "=": "=", "!=": "=",
    "<": "=", "<=": "=", ">": "=", ">=": "=", "in": "=",
}  # fmt: skip
_SIGNATURE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ()<>?:+-")


def parse(source: str) -> Node:
    """The tree of a whole expression. Raises `ExpressionError` EXPRESSION_INVALID, with the place, for bad syntax,
    for more than 500 operators in a chain, for brackets nested deeper than 100 and for a tree deeper than 200.
    """
    parser = _Parser(source, 0)
    tree = parser.expression(0)
    if parser.token.kind != "end":
        raise parser.unexpected()
    return tree


def end_of_embedded(source: str, start: int) -> int:
    """Where the expression that begins at `start` of a longer text ends: the place of the `}}` behind it.

    Raises like `parse`.
    """
    parser = _Parser(source, start)
    parser.expression(0)
    if not source.startswith("}}", parser.token.at):
        raise parser.unexpected()
    return parser.token.at


class _Parser:
    """Pratt's algorithm, with one method for each operator that is not plainly infix."""

    def __init__(self, source: str, start: int) -> None:
        self._lexer = Lexer(source, start)
        self._nesting = 0
        self._brackets = 0
        self.token = self._lexer.next(after_operand=False)
        self._prefixes: dict[str, Callable[[Token], Node]] = {
            "-": self._minus,
            "*": lambda token: Node("wildcard", token.at, "*"),
            "**": lambda token: Node("descendant", token.at, "**"),
            "%": lambda token: Node("parent", token.at, "%"),
            "(": self._block,
            "[": self._array,
            "{": lambda token: self._node("object", token.at, self._pairs()),
            "|": self._transform,
        }
        self._infixes: dict[str, Callable[[Node, Token], Node]] = {
            ".": self._path,
            "[": self._predicate,
            "(": self._call,
            "@": self._focus,
            "#": self._focus,
            "{": lambda left, token: self._node("group", token.at, [left, *self._pairs()]),
            "^": self._sort,
            "~>": lambda left, token: self._node("apply", token.at, [left, self.expression(40)]),
            "?:": lambda left, token: self._node("elvis", token.at, [left, self.expression(0)]),
            "??": lambda left, token: self._node("coalesce", token.at, [left, self.expression(0)]),
            "?": self._condition,
            ":=": self._bind,
        }

    def expression(self, power: int) -> Node:
        self._nesting += 1
        if self._nesting > MAX_TREE_DEPTH + 1:
            raise invalid(f"the expression is nested deeper than {MAX_TREE_DEPTH}", self.token.at)
        left = self._operand()
        while self.token.kind == "operator" and power < _POWER.get(self.token.text, 0):
            token = self._advance(after_operand=False)
            infix = self._infixes.get(token.text)
            left = infix(left, token) if infix else self._chain(left, token)
        self._nesting -= 1
        return left

    def unexpected(self) -> Exception:
        if self.token.kind == "end":
            return invalid("the expression ends too early", self.token.at)
        return invalid(f"{self.token.text!r} is not expected here", self.token.at)

    def _operand(self) -> Node:
        token = self._advance(after_operand=True)
        if token.kind == "operator":
            if token.text in ("and", "or", "in"):
                return Node("name", token.at, token.text)
            prefix = self._prefixes.get(token.text)
            if prefix is None:
                raise invalid(f"{token.text!r} is not expected here", token.at)
            return prefix(token)
        if token.kind == "end":
            raise invalid("the expression ends too early", token.at)
        return Node(token.kind, token.at, token.text)

    def _advance(self, after_operand: bool) -> Token:
        token = self.token
        if token.kind == "operator":
            self._brackets += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
            if self._brackets > MAX_NESTING:
                raise invalid(f"brackets are nested deeper than {MAX_NESTING}", token.at)
        self.token = self._lexer.next(after_operand)
        return token

    def _expect(self, text: str, after_operand: bool = False) -> None:
        if not self._stands(text):
            raise invalid(f"{text!r} is expected here", self.token.at)
        self._advance(after_operand)

    def _stands(self, text: str) -> bool:
        return self.token.kind == "operator" and self.token.text == text

    def _taken(self, text: str) -> bool:
        if not self._stands(text):
            return False
        self._advance(after_operand=False)
        return True

    def _node(self, kind: Kind, at: int, parts: list[Node], text: str = "", words: list[str] | None = None) -> Node:
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > MAX_TREE_DEPTH:
            raise invalid(f"the expression is nested deeper than {MAX_TREE_DEPTH}", at)
        return Node(kind, at, text, parts, words or [], depth)

    def _extended(self, node: Node, part: Node, word: str) -> Node:
        """A chain with one more operand, in place: a chain belongs to nobody else while it is read."""
        if len(node.parts) > MAX_CHAIN:
            raise invalid(f"a chain has more than {MAX_CHAIN} operators", part.at)
        node.parts.append(part)
        node.words.append(word)
        node.depth = max(node.depth, part.depth + 1)
        return node

    def _chain(self, left: Node, token: Token) -> Node:
        if token.text not in _FAMILY:
            raise invalid(f"{token.text!r} is not expected here", token.at)
        family = _FAMILY[token.text]
        right = self.expression(_POWER[token.text])
        if left.kind == "chain" and left.text == family:
            return self._extended(left, right, token.text)
        return self._node("chain", left.at, [left, right], family, [token.text])

    def _path(self, left: Node, token: Token) -> Node:
        right = self.expression(_POWER["."])
        if left.kind == "path":
            return self._extended(left, right, ".")
        return self._node("path", left.at, [left, right], ".", ["."])

    def _minus(self, token: Token) -> Node:
        return self._node("minus", token.at, [self.expression(70)])

    def _block(self, token: Token) -> Node:
        parts = []
        while not self._stands(")"):
            parts.append(self.expression(0))
            if not self._taken(";"):
                break
        self._expect(")", after_operand=True)
        return self._node("block", token.at, parts)

    def _array(self, token: Token) -> Node:
        parts = []
        if not self._stands("]"):
            while True:
                item = self.expression(0)
                if self._taken(".."):
                    item = self._node("range", item.at, [item, self.expression(0)])
                parts.append(item)
                if not self._taken(","):
                    break
        self._expect("]", after_operand=True)
        return self._node("array", token.at, parts)

    def _pairs(self) -> list[Node]:
        parts = []
        if not self._stands("}"):
            while True:
                parts.append(self.expression(0))
                self._expect(":")
                parts.append(self.expression(0))
                if not self._taken(","):
                    break
        self._expect("}", after_operand=True)
        return parts

    def _transform(self, token: Token) -> Node:
        parts = [self.expression(0)]
        self._expect("|")
        parts.append(self.expression(0))
        if self._taken(","):
            parts.append(self.expression(0))
        self._expect("|")
        return self._node("transform", token.at, parts)

    def _predicate(self, left: Node, token: Token) -> Node:
        if self._stands("]"):
            self._advance(after_operand=False)
            return self._node("keep", token.at, [left])
        predicate = self.expression(0)
        self._expect("]", after_operand=True)
        return self._node("filter", token.at, [left, predicate])

    def _focus(self, left: Node, token: Token) -> Node:
        variable = self.expression(80)
        if variable.kind != "variable":
            raise invalid(f"{token.text!r} is followed by a variable", variable.at)
        return self._node("focus" if token.text == "@" else "index", token.at, [left], variable.text)

    def _sort(self, left: Node, token: Token) -> Node:
        self._expect("(")
        parts, directions = [left], []
        while True:
            direction = self.token.text if self._stands("<") or self._stands(">") else ""
            if direction:
                self._advance(after_operand=False)
            directions.append(direction)
            parts.append(self.expression(0))
            if not self._taken(","):
                break
        self._expect(")")
        return self._node("sort", token.at, parts, "", directions)

    def _condition(self, left: Node, token: Token) -> Node:
        parts = [left, self.expression(0)]
        if self._taken(":"):
            parts.append(self.expression(0))
        return self._node("condition", token.at, parts)

    def _bind(self, left: Node, token: Token) -> Node:
        if left.kind != "variable":
            raise invalid("':=' is preceded by a variable", left.at)
        return self._node("bind", left.at, [self.expression(9)], left.text)

    def _call(self, left: Node, token: Token) -> Node:
        arguments = []
        if not self._stands(")"):
            while True:
                if self._stands("?"):
                    arguments.append(Node("placeholder", self.token.at, "?"))
                    self._advance(after_operand=False)
                else:
                    arguments.append(self.expression(0))
                if not self._taken(","):
                    break
        self._expect(")", after_operand=True)
        if left.kind == "name" and left.text in ("function", "λ"):
            return self._lambda(left, arguments)
        return self._node("call", left.at, [left, *arguments])

    def _lambda(self, left: Node, parameters: list[Node]) -> Node:
        for parameter in parameters:
            if parameter.kind != "variable":
                raise invalid("a function's parameters are variables", parameter.at)
        signature = self._signature() if self._stands("<") else ""
        self._expect("{")
        body = self.expression(0)
        self._expect("}")
        return self._node("lambda", left.at, [body], signature, [parameter.text for parameter in parameters])

    def _signature(self) -> str:
        at, depth, text = self.token.at, 0, ""
        while not self._stands("{") and self.token.kind != "end":
            word = self.token.text
            depth += (word == "<") - (word == ">")
            text += word
            self._advance(after_operand=True)
            if depth == 0:
                break
        if depth or not set(text) <= _SIGNATURE:
            raise invalid("a function's signature is not understood", at)
        return text
