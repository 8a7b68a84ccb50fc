"""Reading a JSON value as a type: as it is, or converted where a filter says `loose`; and JSON's own equality."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from engine.filters.table import FieldType

LONGEST_INTEGER_BITS: Final = 1_024

_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ]([01][0-9]|2[0-3]):[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-]([01][0-9]|2[0-3]):?[0-9]{2})?)?",
    re.ASCII,
)
_TRUTH = {"true": True, "false": False}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_MS = 253_402_300_799_999


@dataclass(frozen=True, slots=True)
class NoMeaning:
    """Why a comparison has no meaning for this event: neither it nor its negation is a match."""

    reason: str


def read(value: Any, as_type: FieldType, loose: bool) -> Any:
    """The value as the type: itself, or a `datetime` for a date. Null is null in every type. `NoMeaning` for a value
    that is not of the type and, with `loose`, cannot be converted either.
    """
    if value is None or as_type is FieldType.ANY:
        return value
    return _READERS[as_type](value, loose)


def number_in(value: Any) -> int | float | None:
    """A number, or the one that a text writes in full; None when there is none."""
    if type(value) is int:
        return value
    if type(value) is float:
        return value if value - value == 0.0 else None
    if type(value) is not str or _NUMBER.fullmatch(value) is None:
        return None
    if value.lstrip("+-").isdigit():
        return int(value)
    written = float(value)
    return written if written - written == 0.0 else None


def date_in(text: Any) -> datetime | None:
    """The instant that an ISO 8601 date or date and time names: midnight where it has no time, UTC where no zone."""
    if type(text) is not str or _DATE.fullmatch(text) is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true or "1" are not; members in any order."""
    pairs = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            pairs.extend((member, right[key]) for key, member in left.items())
        elif isinstance(left, bool) is not isinstance(right, bool) or left != right:
            return False
    return True


def named(value: Any) -> str:
    """What kind of JSON a value is, for people."""
    return "null" if value is None else _NAMES.get(type(value), "something that is not JSON")


def _string(value: Any, loose: bool) -> Any:
    if type(value) is str:
        return value
    if loose:
        if type(value) is bool:
            return "true" if value else "false"
        if type(value) is float and value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        if type(value) is float or (type(value) is int and value.bit_length() <= LONGEST_INTEGER_BITS):
            return str(value)
    return _not_of(value, "a text")


def _number(value: Any, loose: bool) -> Any:
    if loose or type(value) is not str:
        number = number_in(value)
        if number is not None:
            return number
    return _not_of(value, "a number")


def _boolean(value: Any, loose: bool) -> Any:
    if type(value) is bool:
        return value
    if loose:
        if type(value) is str and value.lower() in _TRUTH:
            return _TRUTH[value.lower()]
        if type(value) in (int, float) and value in (0, 1):
            return value == 1
    return _not_of(value, "true or false")


def _date(value: Any, loose: bool) -> Any:
    instant = date_in(value)
    if instant is None and loose and type(value) in (int, float) and 0 <= value <= _MOST_MS:
        instant = _EPOCH + timedelta(milliseconds=value)
    return _not_of(value, "a date") if instant is None else instant


def _array(value: Any, _: bool) -> Any:
    return value if type(value) is list else _not_of(value, "a list")


def _object(value: Any, _: bool) -> Any:
    return value if type(value) is dict else _not_of(value, "an object")


def _not_of(value: Any, wanted: str) -> NoMeaning:
    return NoMeaning(f"{named(value)} is not {wanted}")


_READERS: Final[dict[FieldType, Callable[[Any, bool], Any]]] = {
    FieldType.STRING: _string,
    FieldType.NUMBER: _number,
    FieldType.BOOLEAN: _boolean,
    FieldType.DATE: _date,
    FieldType.ARRAY: _array,
    FieldType.OBJECT: _object,
}

_NAMES: Final[dict[type, str]] = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
