"""JSON Schema checks: what is found, what is refused, and that neither can be made slow."""

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import pytest

from engine.errors import EngineError
from engine.schema import Checker, Pattern, SchemaViolation, check_schema, violations

ORDER = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}},
        },
        "mail": {"type": "string", "format": "email"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}$"},
    },
    "required": ["items"],
    "additionalProperties": False,
}


def test_a_value_that_fits_has_no_violations() -> None:
    assert violations(ORDER, {"items": [{"id": 1}], "mail": "a@example.org", "code": "IN"}) == ()


def test_violations_say_where_and_why() -> None:
    found = violations(ORDER, {"items": [{"id": 1}, {"id": "x"}, {}], "code": "in", "more": 1}, "context")
    assert {(each.path, each.message) for each in found} == {
        ("context.items[1].id", '"x" is not of type "integer"'),
        ("context.items[2]", '"id" is a required property'),
        ("context.code", '"in" does not match "^[A-Z]{2}$"'),
        ("context", "Additional properties are not allowed ('more' was unexpected)"),
    }
    assert {each.path for each in violations(ORDER, {"items": [{}]})} == {"items[0]"}


def test_formats_are_checked() -> None:
    assert [each.keyword for each in violations(ORDER, {"items": [], "mail": "nobody"})] == ["format"]


def test_a_long_value_is_not_echoed() -> None:
    (found,) = violations({"maxLength": 3}, "x" * 100_000)
    assert len(found.message) < 200
    assert found.message.endswith("longer than 3 characters")
    (found,) = violations({"enum": list(range(50_000))}, "x")
    assert len(found.message) <= 300


def test_a_large_value_is_told_its_first_violation_quickly() -> None:
    began = perf_counter()
    assert len(violations({"items": {"type": "string"}}, [1] * 300_000)) == 1
    assert perf_counter() - began < 2
    assert len(violations({"items": {"type": "string"}}, [1] * 1_000)) == 100


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "objekt"}, "type"),
        ({"properties": {"a": {"minimum": "x"}}}, "properties.a.minimum"),
        ({"$ref": "https://example.com/schema.json"}, "stays in its own schema"),
        ({"$ref": "file:///etc/passwd"}, "stays in its own schema"),
        ({"$id": "https://example.com/a", "$ref": "b"}, "stays in its own schema"),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "stays in its own schema"),
        ({"$dynamicRef": "https://example.com/x"}, "$dynamicRef is not supported"),
        ({"$schema": "https://example.com/dialect"}, "example.com/dialect"),
        ({"properties": {"a": {"$id": "https://example.com/b"}}}, "$id is allowed at the top"),
        ({"$ref": "#/$defs/nope"}, "does not exist"),
        ({"pattern": "(?=a)b"}, "without look-around"),
        ({"pattern": r"(a)\1"}, "without look-around"),
        ({"properties": {"a": {"pattern": "((a{100}){100}){100}"}}}, "not too large"),
        ({"pattern": "a" * 1_001}, "at most 1000 characters"),
        ({"properties": {str(at): {"pattern": "a"} for at in range(101)}}, "at most 100 patterns"),
        ({"$ref": "#"}, "without descending"),
        ({"allOf": [{"anyOf": [{"$ref": "#"}]}]}, "without descending"),
    ],
)
def test_an_unusable_schema_is_refused_with_its_reason(schema: dict[str, Any], expected: str) -> None:
    why = check_schema(schema)
    assert why is not None
    assert expected in why
    with pytest.raises(EngineError) as raised:
        violations(schema, {})
    assert raised.value.code == "SCHEMA_INVALID"


def test_a_schema_that_is_not_json_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"items": deep}
    for schema in ({"const": {1, 2}}, {"const": float("nan")}, {"const": "\ud800"}, deep):
        assert check_schema(schema) is not None
    while deep:
        deep = deep["items"]  # taken apart here, because freeing it at once would recurse


def test_a_catastrophic_pattern_takes_linear_time() -> None:
    began = perf_counter()
    assert violations({"pattern": "^(a+)+$"}, "a" * 50_000 + "b") != ()
    assert perf_counter() - began < 1


def doubling(levels: int) -> dict[str, Any]:
    """A few lines that stand for 2 to the power of `levels` subschemas."""
    twice = {f"a{at}": {"allOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**twice, f"a{levels}": {"type": "object"}}}


def test_references_that_multiply_are_refused() -> None:
    assert check_schema(doubling(8)) is None
    why = check_schema(doubling(60))
    assert why is not None
    assert "grows to more than" in why


def test_a_recursion_that_looks_at_everything_once_is_accepted() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "left": {"$ref": "#/$defs/node"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
            }
        },
    }
    assert check_schema(tree) is None
    value = {"children": [{"name": "a"}, {"left": {"name": 5}}]}
    assert [each.path for each in violations(tree, value)] == ["children[1].left.name"]


@pytest.mark.parametrize(
    "node",
    [
        {"allOf": [{"properties": {"a": {"$ref": "#/$defs/n"}}}] * 2},
        {"anyOf": [{"items": {"$ref": "#/$defs/n"}}, {"contains": {"$ref": "#/$defs/n"}}]},
        {"properties": {"a": {"$ref": "#/$defs/n"}}, "patternProperties": {"a": {"$ref": "#/$defs/n"}}},
    ],
)
def test_a_recursion_that_looks_at_something_twice_is_refused(node: dict[str, Any]) -> None:
    """Its time doubles with every level of the value."""
    why = check_schema({"$ref": "#/$defs/n", "$defs": {"n": node}})
    assert why is not None
    assert "more than once" in why


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    schema = {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}, "pattern": {"type": "string"}}}
    assert check_schema(schema) is None


@pytest.mark.parametrize("value", [{"a": {1, 2}}, float("nan"), "\ud800", object()])
def test_a_value_that_is_not_json_does_not_fit(value: Any) -> None:
    expected = SchemaViolation("context", "the value is not JSON, or is nested too deeply")
    assert violations({}, value, "context") == (expected,)


def test_an_object_whose_names_are_not_text_does_not_fit() -> None:
    assert violations({"type": "object", "properties": {"1": {}}, "minProperties": 1}, {1: 2}) != ()


def test_a_bottomless_value_does_not_fit() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert violations({"items": {"$ref": "#"}}, value)[0].message.startswith("the value is not JSON")
    while value:
        value = value[0]


def test_an_older_draft_is_recognised_by_its_name() -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert [each.path for each in violations(schema, [5])] == ["[0]"]


def test_a_checker_may_be_used_from_many_threads() -> None:
    checker = Checker(ORDER)
    values = [{"items": [{"id": at if at % 2 else "x"}]} for at in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(checker.violations, values))
    assert [len(each) for each in found] == [0 if at % 2 else 1 for at in range(200)]


def test_a_pattern_by_itself_is_found_anywhere_in_a_text() -> None:
    assert Pattern("b+").found_in("abba")
    assert not Pattern("^b+").found_in("abba")
    assert not Pattern("B").found_in("abba")
    assert Pattern("B", case_sensitive=False).found_in("abba")
    assert Pattern("^É$", case_sensitive=False).found_in("é")
    assert Pattern("b").found_in("\ud800b") is None


@pytest.mark.parametrize("source", ["(", "(?=a)b", r"(a)\1", "((a{100}){100}){100}", "a" * 1_001, "\ud800", "a)(b"])
def test_a_pattern_that_is_none_or_could_be_slow_is_refused(source: str) -> None:
    for case_sensitive in (True, False):
        with pytest.raises(EngineError) as raised:
            Pattern(source, case_sensitive)
        assert raised.value.code == "PATTERN_INVALID"
        assert not raised.value.message.startswith("pattern:")


def test_a_pattern_that_would_make_others_backtrack_is_quick() -> None:
    began = perf_counter()
    assert not Pattern("(a+)+$", case_sensitive=False).found_in("a" * 100_000 + "b")
    assert perf_counter() - began < 2
