"""The right side of a condition: a constant that fits the operator and its type, or a reference to the payload."""

from collections.abc import Callable
from typing import Final

from engine.bounds import Bounds, measure
from engine.errors import EngineError, ExpressionError
from engine.filters.comparing import order, pattern
from engine.filters.faults import Faults, FilterRule
from engine.filters.kinds import LONGEST_INTEGER_BITS, NoMeaning, named, read
from engine.filters.paths import Path, parse_path
from engine.filters.table import RULES, FieldType, OperandKind
from engine.filters.tree import Comparison, Several, mentions_braces
from engine.json_types import JSON
from engine.values import Const

MOST_ITEMS: Final = 1_000
CONSTANT: Final = Bounds("the value", 2_000, 20_000, "FILTER_INVALID")

Single = Const | Path


class OperandReader:
    """Reads the operand of one condition whose left side, operator and type are known. Faults are collected; what is
    wrong reads as null.
    """

    def __init__(self, condition: Comparison, path: str, faults: Faults) -> None:
        self._condition = condition
        self._path = path
        self._faults = faults
        self._kind = RULES[condition.operator].operand

    def read(self, raw: JSON) -> Const | Path | Several:
        """The operand that is written there."""
        match self._kind:
            case OperandKind.PAIR:
                return self._pair(raw)
            case OperandKind.LIST:
                return self._list(raw)
            case OperandKind.PATTERN:
                return self._pattern(raw)
            case _:
                operand = self._single(raw, self._path)
                if isinstance(operand, Const):
                    self._check(operand.value, self._path)
                return operand

    def _single(self, raw: JSON, path: str) -> Single:
        if isinstance(raw, dict) and raw.get("type") == "const":
            if raw.keys() != {"type", "value"}:
                return self._fault(path, "a const has a `value` and nothing else")
            return self._constant(raw["value"], path)
        if isinstance(raw, dict) and raw.get("type") in ("field", "expr", "template"):
            return self._fault(
                path, "an operand is a constant or a reference; a computed one needs a condition in JSONata"
            )
        if isinstance(raw, str) and mentions_braces(raw):
            return self._reference(raw, path)
        constant = self._constant(raw, path)
        if isinstance(raw, list | dict) and mentions_braces(constant.value):
            return self._fault(
                path, 'a reference stands alone; text with braces in it is {"type": "const", "value": …}'
            )
        return constant

    def _constant(self, value: JSON, path: str) -> Const:
        try:
            measure(value, CONSTANT)
        except ExpressionError as error:
            self._faults.add(path, FilterRule.SIZE, error.message)
            return Const(None)
        if _has_endless_number(value):
            self._faults.add(path, FilterRule.SIZE, f"a whole number has at most {LONGEST_INTEGER_BITS} bits")
            return Const(None)
        return Const(_copied(value))

    def _reference(self, text: str, path: str) -> Single:
        stripped = text.strip()
        if not (stripped.startswith("{{") and stripped.endswith("}}")):
            message = (
                'a value is one whole reference or plain text; text with braces in it is {"type": "const", "value": …}'
            )
            return self._fault(path, message)
        reference = parse_path(text)
        if isinstance(reference, str):
            self._faults.add(path, FilterRule.PATH, reference)
            return Const(None)
        return reference

    def _pair(self, raw: JSON) -> Several:
        if not isinstance(raw, list) or len(raw) != 2:
            self._fault(self._path, "two values are needed here, as a list: low, high")
            return Several(())
        ends = [self._single(item, f"{self._path}[{index}]") for index, item in enumerate(raw)]
        sound = [
            isinstance(end, Path) or self._check(end.value, f"{self._path}[{index}]") for index, end in enumerate(ends)
        ]
        low, high = ends
        if all(sound) and isinstance(low, Const) and isinstance(high, Const):
            standing = order(self._condition, low.value, high.value)
            if isinstance(standing, NoMeaning):
                self._fault(self._path, f"the two ends cannot be compared: {standing.reason}")
            elif standing > 0:
                self._fault(self._path, "the low end is above the high end, so nothing would ever be between them")
        return Several(tuple(ends))

    def _list(self, raw: JSON) -> Path | Several | Const:
        if isinstance(raw, str) and "{{" in raw:
            return self._reference(raw, self._path)
        if not isinstance(raw, list) or not raw:
            return self._fault(self._path, "a list with at least one value is needed here")
        if len(raw) > MOST_ITEMS:
            self._faults.add(self._path, FilterRule.SIZE, f"a list has at most {MOST_ITEMS} items")
            return Const(None)
        items = []
        for index, item in enumerate(raw):
            path = f"{self._path}[{index}]"
            operand = self._single(item, path)
            if isinstance(operand, Const):
                self._check(operand.value, path)
            items.append(operand)
        return Several(tuple(items))

    def _pattern(self, raw: JSON) -> Const:
        source = self._single(raw, self._path)
        if isinstance(source, Path) or not isinstance(source.value, str) or not source.value:
            return self._fault(self._path, "a regular expression is needed here, as text that is not empty")
        try:
            pattern(source.value, self._condition.case_sensitive)
        except EngineError as error:
            self._faults.add(self._path, FilterRule.PATTERN, error.message)
        return source

    def _check(self, value: JSON, path: str) -> bool:
        """Whether a constant fits; a problem is noted when it does not."""
        why = _CHECKS[self._kind](value, self._condition)
        if why is not None:
            self._fault(path, why)
        return why is None

    def _fault(self, path: str, message: str) -> Const:
        self._faults.add(path, FilterRule.OPERAND, message)
        return Const(None)


def misfit(value: JSON, as_type: FieldType, loose: bool) -> str | None:
    """Why a constant is not of a type, or None when it is."""
    found = read(value, as_type, loose)
    return found.reason if isinstance(found, NoMeaning) else None


def _value(value: JSON, condition: Comparison) -> str | None:
    return misfit(value, condition.type, condition.loose)


def _ordered(value: JSON, condition: Comparison) -> str | None:
    if value is None:
        return "null has no place in an order"
    if condition.type is FieldType.ANY:
        return None if type(value) in (int, float, str) else f"{named(value)} has no place in an order"
    return misfit(value, condition.type, condition.loose)


def _text(value: JSON, condition: Comparison) -> str | None:
    if value is None or value == "":
        return "a text that is not empty is needed here"
    return misfit(value, FieldType.STRING, condition.loose)


def _part(value: JSON, condition: Comparison) -> str | None:
    if condition.type is FieldType.ARRAY:
        return None
    if condition.type is FieldType.STRING:
        return _text(value, condition)
    return "every text contains the empty text; say what is looked for" if value == "" else None


def _length(value: JSON, condition: Comparison) -> str | None:
    length = read(value, FieldType.NUMBER, condition.loose)
    if isinstance(length, int | float) and length >= 0 and length == int(length):
        return None
    return "a length is a whole number from 0 on"


def _name(value: JSON, condition: Comparison) -> str | None:
    return None if isinstance(value, str) and value else "the name of a member is needed here, as text"


_CHECKS: Final[dict[OperandKind, Callable[[JSON, Comparison], str | None]]] = {
    OperandKind.VALUE: _value,
    OperandKind.LIST: _value,
    OperandKind.ORDERED: _ordered,
    OperandKind.PAIR: _ordered,
    OperandKind.TEXT: _text,
    OperandKind.PART: _part,
    OperandKind.LENGTH: _length,
    OperandKind.NAME: _name,
}


def _has_endless_number(value: JSON) -> bool:
    """Whether there is a whole number that Python would not write out again."""
    if isinstance(value, list):
        return any(map(_has_endless_number, value))
    if isinstance(value, dict):
        return any(map(_has_endless_number, value.values()))
    return isinstance(value, int) and value.bit_length() > LONGEST_INTEGER_BITS


def _copied(value: JSON) -> JSON:
    if isinstance(value, list):
        return [_copied(item) for item in value]
    if isinstance(value, dict):
        return {key: _copied(member) for key, member in value.items()}
    return value
