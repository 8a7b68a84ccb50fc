"""For every operator and every type it accepts: data that it holds for, data that it does not hold for, and data for
which it means nothing. A negation has those of what it negates, the other way round.
"""

from dataclasses import dataclass
from typing import Any

from engine.filters.table import RULES, FieldType, Operator

NOTHING: tuple[Any, ...] = ()
ANY, STRING, NUMBER = FieldType.ANY, FieldType.STRING, FieldType.NUMBER
BOOLEAN, DATE, ARRAY, OBJECT = FieldType.BOOLEAN, FieldType.DATE, FieldType.ARRAY, FieldType.OBJECT


@dataclass(frozen=True)
class Examples:
    """An operand, and values of the left side by what the comparison says of them."""

    operand: Any
    holds: tuple[Any, ...]
    fails: tuple[Any, ...]
    means_nothing: tuple[Any, ...] = NOTHING


MAY = "2024-05-01"
NOON = "2024-05-01T12:00:00Z"
NOT_DATES = ("soon", "2024-13-01", 5, True, [MAY], {})
NO_ORDER = (None, True, [5], {"x": 5})

_POSITIVE: dict[tuple[Operator, FieldType], Examples] = {
    (Operator.EQUALS, ANY): Examples("won", ("won",), ("Won", "won ", "", None, 1, True, ["won"], {})),
    (Operator.EQUALS, STRING): Examples("5", ("5",), ("05", "", None), (5, True, ["5"], {})),
    (Operator.EQUALS, NUMBER): Examples(1, (1, 1.0), (1.5, 0, None), (True, "1", [1], {})),
    (Operator.EQUALS, BOOLEAN): Examples(True, (True,), (False, None), (1, "true", [True], {})),
    (Operator.EQUALS, DATE): Examples(
        "2024-05-01T14:00:00+02:00", (NOON, "2024-05-01T12:00", "2024-05-01 12:00:00.000+0000"), (MAY, None), NOT_DATES
    ),
    (Operator.EQUALS, ARRAY): Examples([1, {"a": 2}], ([1, {"a": 2.0}],), ([], [1], [{"a": 2}, 1], None), ("1", {})),
    (Operator.EQUALS, OBJECT): Examples(
        {"a": 1, "b": [2]}, ({"b": [2], "a": 1},), ({}, {"a": True, "b": [2]}, {"a": 1}, None), ("x", [])
    ),
    (Operator.CONTAINS, ANY): Examples(
        "IN", ("in", "pINk", ["x", "IN"]), ("on", "", None, [], ["in"], ["pINk"]), (5, True, {"IN": 1})
    ),
    (Operator.CONTAINS, STRING): Examples("IN", ("in", "pINk"), ("on", "", None), (5, True, ["IN"], {"IN": 1})),
    (Operator.CONTAINS, ARRAY): Examples(1, ([1], ["x", 1.0]), ([], [True], ["1"], [[1]], None), ("1", 1, {"1": 1})),
    (Operator.STARTS_WITH, STRING): Examples("Re:", ("re: x", "RE:"), (" re:", "", None), (5, ["Re:"], {})),
    (Operator.ENDS_WITH, STRING): Examples(".Pdf", ("a.pdf", ".PDF"), ("a.pdf ", "", None), (5, [".pdf"], {})),
    (Operator.REGEX, STRING): Examples(
        "^ab+C$", ("abc", "ABBBC"), ("abcd", "ac", "", None), (5, ["abc"], {}, "\ud800")
    ),
    (Operator.GREATER_THAN, ANY): Examples(9, (10, 9.5, "10", "1e3"), (9, 8, "9.0", "-1"), (*NO_ORDER, "ten", MAY)),
    (Operator.GREATER_THAN, NUMBER): Examples(9, (10, 9.5), (9, 8), (*NO_ORDER, "10", MAY)),
    (Operator.GREATER_THAN, DATE): Examples(MAY, (NOON, "2024-05-02"), (MAY, "2023-12-31"), (None, *NOT_DATES)),
    (Operator.GREATER_THAN, STRING): Examples("b", ("c", "ba"), ("b", "B", "a", ""), (*NO_ORDER, 5)),
    (Operator.GREATER_THAN_OR_EQUAL, ANY): Examples(MAY, (MAY, NOON, "soon"), ("2024-04-30", "1999"), (*NO_ORDER, 5)),
    (Operator.GREATER_THAN_OR_EQUAL, NUMBER): Examples(9, (9, 10, 9.0), (8.9, -9), (*NO_ORDER, "10")),
    (Operator.GREATER_THAN_OR_EQUAL, DATE): Examples(NOON, (NOON, "2024-05-02"), (MAY,), (None, *NOT_DATES)),
    (Operator.GREATER_THAN_OR_EQUAL, STRING): Examples("b", ("b", "c"), ("a", "B"), (*NO_ORDER, 5)),
    (Operator.LESS_THAN, ANY): Examples("9", (8, "8.5", -1), (9, 10, "10"), (*NO_ORDER,)),
    (Operator.LESS_THAN, NUMBER): Examples(9, (8, 8.5), (9, 10), (*NO_ORDER, "8")),
    (Operator.LESS_THAN, DATE): Examples(NOON, (MAY, "2024-05-01T13:30+02:00"), (NOON,), (None, *NOT_DATES)),
    (Operator.LESS_THAN, STRING): Examples("b", ("a", "B", ""), ("b", "c"), (*NO_ORDER, 5)),
    (Operator.LESS_THAN_OR_EQUAL, ANY): Examples("m", ("m", "a", "2024", MAY), ("n",), (*NO_ORDER, 5)),
    (Operator.LESS_THAN_OR_EQUAL, NUMBER): Examples(9, (9, 8), (9.1,), (*NO_ORDER, "9")),
    (Operator.LESS_THAN_OR_EQUAL, DATE): Examples(MAY, (MAY, "0001-01-01"), (NOON,), (None, *NOT_DATES)),
    (Operator.LESS_THAN_OR_EQUAL, STRING): Examples("b", ("b", "a"), ("c",), (*NO_ORDER, 5)),
    (Operator.BETWEEN, ANY): Examples([1, "5"], (1, 5, "3", 2.5), (0, 6, "-1", 5.01), (*NO_ORDER, "many")),
    (Operator.BETWEEN, NUMBER): Examples([1, 5], (1, 5, 3), (0, 6), (*NO_ORDER, "3")),
    (Operator.BETWEEN, DATE): Examples(
        [MAY, "2024-05-31"], (MAY, NOON, "2024-05-31T00:00:00Z"), ("2024-05-31T00:00:01Z",), (None, *NOT_DATES)
    ),
    (Operator.BETWEEN, STRING): Examples(["b", "d"], ("b", "cat", "d"), ("a", "dog", "B"), (*NO_ORDER, 5)),
    (Operator.IN, ANY): Examples(["a", 1, None], ("a", 1, 1.0, None), ("A", True, "1", "", [], {})),
    (Operator.IN, STRING): Examples(["a", "b"], ("a", "b"), ("A", "ab", "", None), (1, ["a"], {})),
    (Operator.IN, NUMBER): Examples([1, 2.5], (1, 2.5, 1.0), (2, None), ("1", True, [1])),
    (Operator.IN, BOOLEAN): Examples([True], (True,), (False, None), (1, "true")),
    (Operator.IN, DATE): Examples([MAY, NOON], (MAY, "2024-05-01T14:00+02:00"), ("2024-05-02", None), NOT_DATES),
    (Operator.ARRAY_LENGTH, ARRAY): Examples(2, ([1, 2], [None, None]), ([], [1], [1, 2, 3]), (None, "ab", {"a": 1})),
    (Operator.HAS_PROPERTY, OBJECT): Examples("a", ({"a": 1}, {"a": None}), ({}, {"b": 1}, None), ("a", ["a"], 5)),
}
for _type in FieldType:
    _blank = {ARRAY: ([],), OBJECT: ({},)}.get(_type, ())
    _full = tuple(value for value in (0, False, " ", [0], {"a": 1}, [], {}) if value not in _blank or value is False)
    _POSITIVE[Operator.IS_EMPTY, _type] = Examples(None, (None, "", *_blank), _full)
    _POSITIVE[Operator.EXISTS, _type] = Examples(None, (0, "", False, [], {}), (None,))

EXAMPLES = {
    **_POSITIVE,
    **{
        (operator, each): Examples(found.operand, found.fails, found.holds, found.means_nothing)
        for operator, rule in RULES.items()
        if rule.negates is not None
        for (positive, each), found in _POSITIVE.items()
        if positive is rule.negates
    },
}
