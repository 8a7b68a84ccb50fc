"""A filter in its normal form: a frozen tree that says nothing of the vocabulary it was written in."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from engine.expression import Expression
from engine.filters.paths import Path
from engine.filters.table import FieldType, Operator
from engine.json_types import JSON
from engine.values import Const


def mentions_braces(value: JSON) -> bool:
    """Whether a text has double braces, or a list or object holds one that has."""
    if isinstance(value, list):
        return any(map(mentions_braces, value))
    if isinstance(value, dict):
        return any(map(mentions_braces, value.values()))
    return isinstance(value, str) and ("{{" in value or "}}" in value)


class Combinator(StrEnum):
    """How a group's parts make one answer."""

    AND = "AND"
    OR = "OR"


@dataclass(frozen=True, slots=True)
class Several:
    """The operand of `between`, `in` and their negations: each item a constant or a path."""

    items: tuple[Const | Path, ...]


Operand = Const | Path | Several


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition. `right` is None where the operator has no operand. With `loose` both sides are converted to the
    type; otherwise they must be of it. What does not matter to the operator has its default here.
    """

    left: Path
    operator: Operator
    right: Operand | None = None
    type: FieldType = FieldType.ANY
    case_sensitive: bool = False
    loose: bool = False


@dataclass(frozen=True, slots=True)
class ExpressionCondition:
    """A condition in JSONata over `__trigger__`; `default` is the answer where it is undefined."""

    expression: Expression
    default: bool | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions and groups under AND or OR. One without parts holds for everything, and is always an AND."""

    combinator: Combinator
    parts: tuple["Filter", ...]


Filter = Group | Comparison | ExpressionCondition

EVERYTHING = Group(Combinator.AND, ())


def dump(tree: Filter) -> dict[str, JSON]:
    """The filter as a document that `parse` reads back as the same filter."""
    match tree:
        case Group(combinator, ()):
            return {"operator": str(combinator), "conditions": []}
        case Group(combinator, parts):
            return {"combinator": str(combinator), "conditions": [dump(part) for part in parts]}
        case ExpressionCondition(expression, default):
            document: dict[str, JSON] = {"type": "expr", "expr": {"src": expression.source}}
            return document if default is None else {**document, "default": default}
        case Comparison():
            return _comparison(tree)
        case _:
            assert_never(tree)


def _comparison(tree: Comparison) -> dict[str, JSON]:
    document: dict[str, JSON] = {
        "leftValue": _reference(tree.left),
        "operator": {"type": str(tree.type), "operation": str(tree.operator)},
    }
    if tree.right is not None:
        document["rightValue"] = operand_document(tree.right)
    options: dict[str, JSON] = {}
    if tree.case_sensitive:
        options["caseSensitive"] = True
    if tree.loose:
        options["typeValidation"] = "loose"
    return {**document, "options": options} if options else document


def operand_document(operand: Operand) -> JSON:
    """An operand as a document holds it; a constant that could be taken for something else stands in a `const`."""
    match operand:
        case Path():
            return _reference(operand)
        case Several(items):
            return [operand_document(item) for item in items]
        case Const(value):
            if isinstance(value, list | dict) or mentions_braces(value):
                return {"type": "const", "value": value}
            return value
        case _:
            assert_never(operand)


def _reference(path: Path) -> str:
    return f"{{{{ {path} }}}}"
