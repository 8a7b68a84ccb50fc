"""Does an event match a filter, and why or why not."""

from dataclasses import dataclass
from typing import Any, assert_never

from engine.errors import ClockExceeded, ExpressionError
from engine.expression import Moment, evaluate
from engine.filters.comparing import Verdict, compare
from engine.filters.describing import describe
from engine.filters.kinds import NoMeaning
from engine.filters.paths import Path, follow
from engine.filters.tree import Combinator, Comparison, ExpressionCondition, Filter, Group, Operand, Several
from engine.json_types import JSON, Undefined
from engine.values import Const

# Filters may not ask for the time or for chance (`reading` refuses it), so any moment is as good as another.
_NO_MOMENT = Moment(0, "filter")


def matches(tree: Filter, payload: JSON) -> bool:
    """Whether an event with this payload passes. Never raises, whatever the payload; `explain` tells why not."""
    if isinstance(tree, Group):
        if tree.combinator is Combinator.AND:
            return all(matches(part, payload) for part in tree.parts)
        return any(matches(part, payload) for part in tree.parts)
    return _verdict(tree, payload) is True


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one part of a filter. `path` is where it stands in the document, `text` is it in words.

    Of a comparison `left` and `right` are what was compared (parts of the payload, not copies). `reason` says why a
    condition that does not hold could not be decided at all. `parts` are a group's, all of them, also those that
    could not change the answer any more.
    """

    path: str
    text: str
    holds: bool
    left: JSON = None
    right: JSON = None
    reason: str | None = None
    parts: tuple["Finding", ...] = ()


def explain(tree: Filter, payload: JSON, at: str = "") -> Finding:
    """What was compared in each condition and whether it held; `holds` of the whole is what `matches` says.

    Paths begin with `at`. Never raises.
    """
    match tree:
        case Group(combinator, parts):
            below = f"{at}.conditions" if at else "conditions"
            findings = tuple(explain(part, payload, f"{below}[{index}]") for index, part in enumerate(parts))
            whole = all if combinator is Combinator.AND else any
            return Finding(at, describe(tree), whole(part.holds for part in findings), parts=findings)
        case Comparison():
            verdict = _verdict(tree, payload)
            left, right = follow(tree.left, payload), _resolved(tree.right, payload)
            return Finding(at, describe(tree), verdict is True, left, right, _reason(verdict))
        case ExpressionCondition():
            verdict = _verdict(tree, payload)
            return Finding(at, describe(tree), verdict is True, reason=_reason(verdict))
        case _:
            assert_never(tree)


def _reason(verdict: Verdict) -> str | None:
    return verdict.reason if isinstance(verdict, NoMeaning) else None


def _verdict(tree: Comparison | ExpressionCondition, payload: JSON) -> Verdict:
    if isinstance(tree, Comparison):
        return compare(tree, follow(tree.left, payload), _resolved(tree.right, payload))
    return _evaluated(tree, payload)


def _resolved(operand: Operand | None, payload: JSON) -> Any:
    match operand:
        case Const(value):
            return value
        case Path():
            return follow(operand, payload)
        case Several(items):
            return [_resolved(item, payload) for item in items]
        case None:
            return None
        case _:
            assert_never(operand)


def _evaluated(tree: ExpressionCondition, payload: JSON) -> Verdict:
    try:
        result = evaluate(tree.expression, {"__trigger__": payload}, _NO_MOMENT)
    except ExpressionError as error:
        if error.code == "EXPRESSION_UNDEFINED" and tree.default is not None:
            return tree.default
        return NoMeaning(error.message)
    except ClockExceeded:
        return NoMeaning("the expression took too long")
    if isinstance(result, Undefined):
        return NoMeaning("the expression is undefined") if tree.default is None else tree.default
    return result if isinstance(result, bool) else NoMeaning("the expression is neither true nor false")
