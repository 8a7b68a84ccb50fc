"""A column's text becomes the JSON value that the reader of a payload expects, and never another number."""

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connections.column_values import TypeTable, exact_integer, exact_number, json_value, read_json


@pytest.mark.parametrize(
    ("text", "oid", "value"),
    [
        ("t", 16, True),
        ("f", 16, False),
        ("42", 23, 42),
        ("-9007199254740991", 20, -9007199254740991),
        ("9007199254740993", 20, "9007199254740993"),
        ("10.10", 1700, 10.1),
        ("0.1", 1700, 0.1),
        ("42", 1700, 42),
        ("0.1234567890123456789", 1700, "0.1234567890123456789"),
        ("NaN", 1700, "NaN"),
        ("Infinity", 701, "Infinity"),
        ("1e+20", 701, 1e20),
        ("1.5", 700, 1.5),
        ('{"a": [1, 12345678901234567890]}', 3802, {"a": [1, "12345678901234567890"]}),
        ("null", 3802, None),
        ("2026-01-31 09:00:00.123", 1114, "2026-01-31T09:00:00.123"),
        ("2026-01-31 09:00:00+00", 1184, "2026-01-31T09:00:00+00:00"),
        ("2026-01-31 09:00:00+05:30", 1184, "2026-01-31T09:00:00+05:30"),
        ("infinity", 1184, "infinity"),
        ("2026-01-31", 1082, "2026-01-31"),
        ("\\xdeadbeef", 17, "\\xdeadbeef"),
        ("plain", 25, "plain"),
        ("{}", 1007, []),
        ("{1,NULL,3}", 1007, [1, None, 3]),
        ("{{1,2},{3,4}}", 1007, [[1, 2], [3, 4]]),
        ("[0:1]={5,6}", 1007, [5, 6]),
        ('{a,"b c","say \\"x\\"","back\\\\slash",NULL,"NULL",""}', 1009,
         ["a", "b c", 'say "x"', "back\\slash", None, "NULL", ""]),
        ("{t,f}", 1000, [True, False]),
        ('{"2026-01-31 09:00:00+00"}', 1185, ["2026-01-31T09:00:00+00:00"]),
        ('{"{\\"a\\": 1}"}', 3807, [{"a": 1}]),
        ("(1,2)", 600, "(1,2)"),
    ],
)  # fmt: skip
def test_a_text_has_the_value_of_its_type(text: str, oid: int, value: Any) -> None:
    found = json_value(text, oid)
    assert found == value
    assert type(found) is type(value)


def test_domains_and_arrays_of_the_servers_own_types_are_known_when_told() -> None:
    types = TypeTable(items={20_001: 20_000}, domains={20_002: 20_003, 20_003: 23})
    assert json_value("{sad,happy}", 20_001, types) == ["sad", "happy"]
    assert json_value("7", 20_002, types) == 7
    assert json_value("{sad,happy}", 20_001) == "{sad,happy}"


@given(st.integers())
def test_a_whole_number_is_never_changed(number: int) -> None:
    found = exact_integer(str(number))
    assert int(found) == number
    assert isinstance(found, str) or float(found) == number


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_is_never_changed(number: Decimal) -> None:
    found = exact_number(f"{number}")
    assert Decimal(str(found)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_stays_the_same_double(number: float) -> None:
    found = exact_number(repr(number))
    assert float(found) == number
    assert not isinstance(found, float) or math.isfinite(found)


Documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(Documents)
def test_a_document_is_read_as_it_was_written(document: Any) -> None:
    assert read_json(json.dumps(document)) == document


def array_text(items: list[str | None]) -> str:
    def item(value: str | None) -> str:
        if value is None:
            return "NULL"
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return "{" + ",".join(map(item, items)) + "}"


@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\0"))))
def test_any_texts_survive_in_an_array(items: list[str | None]) -> None:
    assert json_value(array_text(items), 1009) == items


def test_what_nests_too_deep_is_its_text_from_there_on() -> None:
    text = '{"a": [1, {"b": ["]", "\\"}", {"c": 2.50}]}], "d": [[[[]]], 3]}'
    assert read_json(text, 3) == {"a": [1, {"b": '["]", "\\"}", {"c": 2.50}]'}], "d": [["[[]]"], 3]}
    assert read_json("[" * 20_000 + "]" * 20_000)
