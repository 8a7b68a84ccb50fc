"""PostgreSQL's text of a value → JSON, by the type of its column.

The session that the text comes from has datestyle ISO, intervalstyle iso_8601, time zone UTC and bytea_output hex, so
that replication and `to_jsonb` (which fills the outbox) say the same of the same row.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from app.untrusted import DEEPEST

# What a double holds exactly; readers of JSON take every number for one.
LARGEST_INTEGER: Final = 2**53 - 1
# Letters. What is longer has more digits than a double.
LONGEST_NUMBER: Final = 40

SESSION: Final = {
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}

_BOOL, _JSON, _JSONB = 16, 114, 3802
_INTEGERS: Final = {20, 21, 23, 26}
_DECIMALS: Final = {700, 701, 1700}
_TIMESTAMP, _TIMESTAMPTZ = 1114, 1184
_BUILT_IN_ARRAYS: Final = {
    1000: _BOOL, 1001: 17, 1005: 21, 1007: 23, 1009: 25, 1014: 1042, 1015: 1043, 1016: 20, 1021: 700, 1022: 701,
    1028: 26, 1115: _TIMESTAMP, 1182: 1082, 1183: 1083, 1185: _TIMESTAMPTZ, 1187: 1186, 1231: 1700, 199: _JSON,
    2951: 2950, 3807: _JSONB,
}  # fmt: skip
_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}(?:\.\d+)?)([+-]\d{2}(?::\d{2})?)?")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?")
_TEXTS_AND_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_BOUNDS = re.compile(r"(\[-?\d+:-?\d+\])+=")


class TypeTable:
    """What is known of types beyond PostgreSQL's own: the items of arrays, and what domains are made of."""

    def __init__(self, items: Mapping[int, int] | None = None, domains: Mapping[int, int] | None = None) -> None:
        self._items = {**_BUILT_IN_ARRAYS, **(items or {})}
        self._domains = dict(domains or {})

    def plain(self, oid: int) -> int:
        """The type that a domain is made of, or the type itself."""
        while oid in self._domains:
            oid = self._domains[oid]
        return oid

    def item(self, oid: int) -> int | None:
        """The type of an array's items; None for what is no array."""
        return self._items.get(oid)


BUILT_IN: Final = TypeTable()


def json_value(text: str, oid: int, types: TypeTable = BUILT_IN) -> Any:
    """The JSON value of a text that PostgreSQL wrote for a value of a type.

    Numbers are numbers where a double holds them exactly, else text; times are ISO 8601; bytes are `\\x` and
    hexadecimal digits; arrays are lists; what has no meaning of its own in JSON stays text.
    """
    oid = types.plain(oid)
    item = types.item(oid)
    if item is not None:
        return _array(text, item, types)
    if oid in _INTEGERS:
        return exact_integer(text)
    if oid in _DECIMALS:
        return exact_number(text)
    if oid == _BOOL:
        return text == "t"
    if oid in {_JSON, _JSONB}:
        return read_json(text)
    if oid in {_TIMESTAMP, _TIMESTAMPTZ}:
        return _moment(text)
    return text


def read_json(text: str, deepest: int = DEEPEST) -> Any:
    """JSON with numbers as `json_value` has them; what nests deeper than so many levels is its text from there on.

    PostgreSQL holds documents of thousands of levels, which neither Python nor what reads events can.
    """
    if text.count("[") + text.count("{") > deepest:
        text = _flattened(text, deepest)
    return json.loads(text, parse_int=exact_integer, parse_float=exact_number)


def _flattened(text: str, deepest: int) -> str:
    parts: list[str] = []
    level = taken = begun = 0
    for found in _TEXTS_AND_BRACKETS.finditer(text):
        if found[0] in {"[", "{"}:
            level += 1
            if level == deepest + 1:
                parts.append(text[taken : found.start()])
                begun = found.start()
        elif found[0] in {"]", "}"}:
            if level == deepest + 1:
                taken = found.end()
                parts.append(json.dumps(text[begun:taken], ensure_ascii=False))
            level -= 1
    return "".join([*parts, text[taken:]])


def exact_integer(text: str) -> int | str:
    """A whole number, or its text where a double would change it."""
    # Longer ones are not even read: Python refuses numbers of thousands of digits.
    if len(text) > 17:
        return text
    number = int(text)
    return number if abs(number) <= LARGEST_INTEGER else text


def exact_number(text: str) -> int | float | str:
    """A number, or its text where a double would change it, or where it is none (NaN, Infinity)."""
    if len(text) > LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return text
    exact, number = Decimal(text), float(text)
    if math.isinf(number) or Decimal(repr(number)) != exact:
        return text
    return exact_integer(text) if text.lstrip("-").isdecimal() else number


def _moment(text: str) -> str:
    found = _MOMENT.fullmatch(text)
    if found is None:
        # Before Christ, after 9999, or infinity.
        return text
    day, time, zone = found.groups()
    if zone is not None and len(zone) == 3:
        zone += ":00"
    return f"{day}T{time}{zone or ''}"


def _array(text: str, item: int, types: TypeTable) -> Any:
    """`{1,NULL,"a b"}`, also nested, also with bounds before it."""
    bounds = _BOUNDS.match(text)
    at = bounds.end() if bounds else 0
    if not text.startswith("{", at):
        return text
    found, _ = _items(text, at + 1, item, types)
    return found


def _items(text: str, at: int, item: int, types: TypeTable) -> tuple[list[Any], int]:
    items: list[Any] = []
    while True:
        match text[at]:
            case "}":
                return items, at + 1
            case ",":
                at += 1
            case "{":
                inner, at = _items(text, at + 1, item, types)
                items.append(inner)
            case '"':
                quoted, at = _quoted(text, at + 1)
                items.append(json_value(quoted, item, types))
            case _:
                end = at
                while text[end] not in ",}":
                    end += 2 if text[end] == "\\" else 1
                word = text[at:end]
                items.append(None if word == "NULL" else json_value(word, item, types))
                at = end


def _quoted(text: str, at: int) -> tuple[str, int]:
    letters: list[str] = []
    while text[at] != '"':
        if text[at] == "\\":
            at += 1
        letters.append(text[at])
        at += 1
    return "".join(letters), at + 1
