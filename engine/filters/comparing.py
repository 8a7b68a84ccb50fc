"""What each operator means: the one place that says so, and docs/filters.md in words.

A comparison holds, does not hold, or has no meaning (a list is not greater than a number). What has no meaning is
not a match, and neither is its negation: a workflow should not start because an event is malformed. Null, which is
also what a missing member is, equals only null, is in no text and no list, and has no place in an order.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from engine.filters.kinds import NoMeaning, date_in, named, number_in, read, same
from engine.filters.table import RULES, FieldType, Operator
from engine.filters.tree import Comparison
from engine.schema import Pattern

Verdict = bool | NoMeaning
Compare = Callable[[Comparison, Any, Any], Verdict]


def compare(comparison: Comparison, left: Any, right: Any) -> Verdict:
    """Whether the comparison holds between two JSON values; never raises."""
    check, negated = _CHECKS[comparison.operator]
    verdict = check(comparison, left, right)
    return not verdict if negated and type(verdict) is bool else verdict


def order(comparison: Comparison, left: Any, right: Any) -> int | NoMeaning:
    """-1, 0 or 1: how two values of the comparison's type stand to each other. Without a type they are read as
    numbers, else as dates, else as texts: as the first that both of them are.
    """
    if left is None or right is None:
        return NoMeaning("null has no place in an order")
    if comparison.type is FieldType.ANY:
        return _order_untyped(left, right)
    one = read(left, comparison.type, comparison.loose)
    other = read(right, comparison.type, comparison.loose)
    if type(one) is NoMeaning:
        return one
    if type(other) is NoMeaning:
        return other
    return _ordered(one, other)


def _order_untyped(left: Any, right: Any) -> int | NoMeaning:
    one, other = number_in(left), number_in(right)
    if one is not None and other is not None:
        return _ordered(one, other)
    if type(left) is not str or type(right) is not str:
        return NoMeaning(f"{named(left)} and {named(right)} have no order")
    first, second = date_in(left), date_in(right)
    if first is not None and second is not None:
        return _ordered(first, second)
    return _ordered(left, right)


def _ordered(one: Any, other: Any) -> int:
    return 1 if one > other else -1 if one < other else 0


def _equals(comparison: Comparison, left: Any, right: Any) -> Verdict:
    one = read(left, comparison.type, comparison.loose)
    if type(one) is NoMeaning:
        return one
    other = read(right, comparison.type, comparison.loose)
    return other if type(other) is NoMeaning else same(one, other)


def _contains(comparison: Comparison, left: Any, right: Any) -> Verdict:
    held = read(left, comparison.type, comparison.loose)
    if type(held) is NoMeaning:
        return held
    if held is None:
        return False
    if type(held) is list:
        return any(same(item, right) for item in held)
    if type(held) is not str:
        return NoMeaning(f"{named(held)} contains nothing")
    return _in_text(comparison, held, right, str.__contains__)


def _starts(comparison: Comparison, left: Any, right: Any) -> Verdict:
    return _text(comparison, left, right, str.startswith)


def _ends(comparison: Comparison, left: Any, right: Any) -> Verdict:
    return _text(comparison, left, right, str.endswith)


def _text(comparison: Comparison, left: Any, right: Any, holds: Callable[[str, str], bool]) -> Verdict:
    held = read(left, FieldType.STRING, comparison.loose)
    if type(held) is NoMeaning:
        return held
    return False if held is None else _in_text(comparison, held, right, holds)


def _in_text(comparison: Comparison, held: str, right: Any, holds: Callable[[str, str], bool]) -> Verdict:
    part = read(right, FieldType.STRING, comparison.loose)
    if type(part) is not str:
        return NoMeaning(f"what is looked for is {named(right)}, not a text")
    if comparison.case_sensitive:
        return holds(held, part)
    return holds(held.casefold(), part.casefold())


def _regex(comparison: Comparison, left: Any, right: Any) -> Verdict:
    held = read(left, FieldType.STRING, comparison.loose)
    if type(held) is NoMeaning:
        return held
    if held is None:
        return False
    found = pattern(right, comparison.case_sensitive).found_in(held)
    return NoMeaning("the text is not Unicode") if found is None else found


@lru_cache(maxsize=1_024)
def pattern(source: str, case_sensitive: bool) -> Pattern:
    """A pattern made ready. Raises `EngineError` PATTERN_INVALID; one that was parsed is usable."""
    return Pattern(source, case_sensitive)


def _greater(comparison: Comparison, left: Any, right: Any) -> Verdict:
    standing = order(comparison, left, right)
    return standing if type(standing) is NoMeaning else standing == 1


def _greater_or_equal(comparison: Comparison, left: Any, right: Any) -> Verdict:
    standing = order(comparison, left, right)
    return standing if type(standing) is NoMeaning else standing != -1


def _less(comparison: Comparison, left: Any, right: Any) -> Verdict:
    standing = order(comparison, left, right)
    return standing if type(standing) is NoMeaning else standing == -1


def _less_or_equal(comparison: Comparison, left: Any, right: Any) -> Verdict:
    standing = order(comparison, left, right)
    return standing if type(standing) is NoMeaning else standing != 1


def _between(comparison: Comparison, left: Any, right: Any) -> Verdict:
    low, high = right
    over = _greater_or_equal(comparison, left, low)
    under = _less_or_equal(comparison, left, high)
    if type(over) is NoMeaning:
        return over
    return under if type(under) is NoMeaning else bool(over and under)


def _in(comparison: Comparison, left: Any, right: Any) -> Verdict:
    if type(right) is not list:
        return NoMeaning(f"what it should be in is {named(right)}, not a list")
    sought = read(left, comparison.type, comparison.loose)
    if type(sought) is NoMeaning:
        return sought
    return any(same(sought, read(item, comparison.type, comparison.loose)) for item in right)


def _is_empty(comparison: Comparison, left: Any, _: Any) -> Verdict:
    if left is None or left == "":
        return True
    if comparison.type is FieldType.ARRAY:
        return type(left) is list and not left
    return comparison.type is FieldType.OBJECT and type(left) is dict and not left


def _exists(_: Comparison, left: Any, __: Any) -> Verdict:
    return left is not None


def _array_length(comparison: Comparison, left: Any, right: Any) -> Verdict:
    held = read(left, FieldType.ARRAY, False)
    if held is None:
        return NoMeaning("null has no length")
    if type(held) is NoMeaning:
        return held
    length = read(right, FieldType.NUMBER, comparison.loose)
    if length is None or type(length) is NoMeaning:
        return NoMeaning(f"the length asked for is {named(right)}, not a number")
    return bool(len(held) == length)


def _has_property(_: Comparison, left: Any, right: Any) -> Verdict:
    held = read(left, FieldType.OBJECT, False)
    if held is None or type(held) is NoMeaning:
        return False if held is None else held
    return right in held if type(right) is str else NoMeaning(f"the member asked for is {named(right)}, not a text")


_POSITIVE: Final[dict[Operator, Compare]] = {
    Operator.EQUALS: _equals,
    Operator.CONTAINS: _contains,
    Operator.STARTS_WITH: _starts,
    Operator.ENDS_WITH: _ends,
    Operator.REGEX: _regex,
    Operator.GREATER_THAN: _greater,
    Operator.GREATER_THAN_OR_EQUAL: _greater_or_equal,
    Operator.LESS_THAN: _less,
    Operator.LESS_THAN_OR_EQUAL: _less_or_equal,
    Operator.BETWEEN: _between,
    Operator.IN: _in,
    Operator.IS_EMPTY: _is_empty,
    Operator.EXISTS: _exists,
    Operator.ARRAY_LENGTH: _array_length,
    Operator.HAS_PROPERTY: _has_property,
}
_CHECKS: Final = {
    operator: (_POSITIVE[rule.negates or operator], rule.negates is not None) for operator, rule in RULES.items()
}
