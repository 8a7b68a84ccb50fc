"""A filter in words, for lists: `operation = "UPDATE" and after.status changed to "won"`."""

import json
from typing import assert_never

from engine.filters.paths import Path
from engine.filters.table import RULES, FieldType, OperandKind, Operator
from engine.filters.tree import Combinator, Comparison, ExpressionCondition, Filter, Group, Operand, Several
from engine.schema import clipped
from engine.values import Const

LONGEST_VALUE = 60
LONGEST_EXPRESSION = 120

_OF_DATES = {
    Operator.EQUALS: "is at",
    Operator.NOT_EQUALS: "is not at",
    Operator.GREATER_THAN: "is after",
    Operator.GREATER_THAN_OR_EQUAL: "is at or after",
    Operator.LESS_THAN: "is before",
    Operator.LESS_THAN_OR_EQUAL: "is at or before",
}


def describe(tree: Filter) -> str:
    """The filter as one line of plain words; long values are clipped."""
    match tree:
        case Group(_, ()):
            return "every event"
        case Group(combinator, parts):
            phrases = _phrases(parts) if combinator is Combinator.AND else [_within(part) for part in parts]
            return f" {combinator.lower()} ".join(phrases)
        case ExpressionCondition(expression):
            return f"{{{clipped(' '.join(expression.source.split()), LONGEST_EXPRESSION)}}}"
        case Comparison():
            return _comparison(tree)
        case _:
            assert_never(tree)


def _phrases(parts: tuple[Filter, ...]) -> list[str]:
    """The parts of an AND. What says that a column was not this and now is this is one phrase."""
    phrases = []
    told: set[int] = set()
    for part in parts:
        before = next((index for index, other in enumerate(parts) if _is_change(other, part)), None)
        if before is None:
            phrases.append((part, _within(part)))
        else:
            told.add(id(parts[before]))
            assert isinstance(part, Comparison)
            phrases.append((part, f"{part.left.short} changed to {_operand(part.right)}"))
    return [phrase for part, phrase in phrases if id(part) not in told]


def _is_change(before: Filter, after: Filter) -> bool:
    return (
        isinstance(before, Comparison)
        and isinstance(after, Comparison)
        and (before.operator, after.operator) == (Operator.NOT_EQUALS, Operator.EQUALS)
        and before.left.members[:1] == ("before",)
        and after.left.members[:1] == ("after",)
        and before.left.members[1:] == after.left.members[1:] != ()
        and (before.right, before.type, before.loose) == (after.right, after.type, after.loose)
    )


def _within(part: Filter) -> str:
    """A part of a group: in brackets where it is a group of several itself."""
    return f"({describe(part)})" if isinstance(part, Group) and len(part.parts) > 1 else describe(part)


def _comparison(tree: Comparison) -> str:
    words = RULES[tree.operator].words
    if tree.type is FieldType.DATE:
        words = _OF_DATES.get(tree.operator, words)
    said = [tree.left.short, words]
    match tree.right:
        case None:
            pass
        case Several((low, high)) if RULES[tree.operator].operand is OperandKind.PAIR:
            said.append(f"{_operand(low)} and {_operand(high)}")
        case _:
            said.append(_operand(tree.right))
    if tree.case_sensitive:
        said.append("(case matters)")
    return " ".join(said)


def _operand(operand: Operand | None) -> str:
    match operand:
        case Path():
            return operand.short
        case Several(items):
            return clipped(", ".join(_operand(item) for item in items), LONGEST_VALUE)
        case Const(value):
            return clipped(json.dumps(value, ensure_ascii=False), LONGEST_VALUE)
        case None:
            return ""
        case _:
            assert_never(operand)
