"""What a filter may not be: refused when it is read, every problem with its path."""

import json
from typing import Any

import pytest

from engine.errors import EngineError
from engine.filters.faults import CODE, FilterError, FilterRule
from engine.filters.reading import DEEPEST_GROUP, MOST_CONDITIONS, parse
from engine.filters.table import RULES, SPELLINGS, FieldType, Operator
from engine.json_types import Undefined
from tests.engine.filter_examples import EXAMPLES


def problems(document: Any, at: str = "") -> list[tuple[str, FilterRule]]:
    """The path and rule of everything that is wrong with a document."""
    with pytest.raises(FilterError) as raised:
        parse(document, at)
    assert all(problem.message and problem.code == CODE for problem in raised.value.problems)
    return [(problem.path, FilterRule(problem.rule)) for problem in raised.value.problems]


def condition(name: Any, *value: Any, **more: Any) -> dict[str, Any]:
    return {"field": "x", "operator": name, **({"value": value[0]} if value else {}), **more}


def by_ui(operator: Any, **more: Any) -> dict[str, Any]:
    return {"leftValue": "{{x}}", "operator": operator, **more}


def nested(depth: int) -> dict[str, Any]:
    document = condition("exists")
    for _ in range(depth):
        document = {"combinator": "AND", "conditions": [document]}
    return document


SHAPE, SIZE, PATH = FilterRule.SHAPE, FilterRule.SIZE, FilterRule.PATH
OPERATOR, TYPE, OPERAND = FilterRule.OPERATOR, FilterRule.TYPE, FilterRule.OPERAND
PATTERN, EXPRESSION = FilterRule.PATTERN, FilterRule.EXPRESSION


def expr(source: Any, **more: Any) -> dict[str, Any]:
    return {"type": "expr", "expr": {"src": source}, **more}


@pytest.mark.parametrize(
    ("document", "path", "rule"),
    [
        ("x = 1", "", SHAPE),
        ([], "", SHAPE),
        (False, "", SHAPE),
        ({"status": "won"}, "", SHAPE),
        ({"combinator": "AND"}, "conditions", SHAPE),
        ({"combinator": "AND", "conditions": []}, "conditions", SHAPE),
        ({"combinator": "AND", "conditions": {}}, "conditions", SHAPE),
        ({"combinator": "XOR", "conditions": [condition("exists")]}, "combinator", SHAPE),
        ({"conditions": [condition("exists")]}, "combinator", SHAPE),
        ({"operator": "NOT", "conditions": [condition("exists")]}, "operator", SHAPE),
        ({"operator": "OR", "combinator": "OR", "conditions": [condition("exists")]}, "combinator", SHAPE),
        ({"operator": "OR", "conditions": [{}]}, "conditions[0]", SHAPE),
        ({"operator": "OR", "conditions": [None]}, "conditions[0]", SHAPE),
        ({"operator": "OR", "conditions": [], "not": True}, "not", SHAPE),
        ({"operator": "OR", "conditions": [], "options": []}, "options", SHAPE),
        (condition("exists", options={"caseSensitive": 1}), "options.caseSensitive", SHAPE),
        (condition("exists", options={"typeValidation": "lax"}), "options.typeValidation", SHAPE),
        (condition("exists", options={"typeValidation": ["loose"]}), "options.typeValidation", SHAPE),
        (condition("exists", options={"version": 3}), "options.version", SHAPE),
        (condition("exists", options={"version": True}), "options.version", SHAPE),
        (condition("exists", options={"ignoreCase": True}), "options.ignoreCase", SHAPE),
        (condition("exists", extra=1), "extra", SHAPE),
        (condition("exists", variable="{{x}}"), "field", SHAPE),
        (by_ui("exists"), "operator", SHAPE),
        (by_ui({"type": "any", "operation": "exists"}, id=1), "id", SHAPE),
        (by_ui({"type": "any", "operation": "exists", "name": "x"}), "operator.name", SHAPE),
        (by_ui({"type": "any", "operation": "exists", "singleValue": "yes"}), "operator.singleValue", SHAPE),
        (
            by_ui({"type": "any", "operation": "equals", "singleValue": True}, rightValue=1),
            "operator.singleValue",
            OPERAND,
        ),
        (by_ui({"type": "any", "operation": "equals", "rightType": "text"}, rightValue=1), "operator.rightType", TYPE),
        (by_ui({"type": "any", "operation": "equals", "rightType": "string"}, rightValue=1), "rightValue", OPERAND),
        (by_ui({"type": "any", "operation": "equals", "rightType": "string"}), "rightValue", OPERAND),
        (condition("equal", 1), "operator", OPERATOR),
        (condition("IS_EMPTY"), "operator", OPERATOR),
        (condition(None, 1), "operator", OPERATOR),
        (condition(["="], 1), "operator", OPERATOR),
        ({"field": "x", "value": 1}, "operator", OPERATOR),
        (by_ui({"type": "any"}), "operator.operation", OPERATOR),
        (condition("=", 1, type="integer"), "type", TYPE),
        (condition("=", 1, type=5), "type", TYPE),
        (by_ui({"type": "number", "operation": "startsWith"}, rightValue="a"), "operator.type", TYPE),
        (condition("after", "2024-01-01", type="string"), "type", TYPE),
        ({"field": "", "operator": "exists"}, "field", PATH),
        ({"field": None, "operator": "exists"}, "field", PATH),
        ({"variable": "{{variable..x}}", "operator": "exists"}, "variable", PATH),
        ({"leftValue": "{{x", "operator": {"operation": "exists"}}, "leftValue", PATH),
        (condition("=", "{{a..b}}"), "value", PATH),
        (condition("in", "{{a..b}}"), "value", PATH),
        (condition("in", [1, "{{a b}}"]), "value[1]", PATH),
        (condition("="), "value", OPERAND),
        (condition("=", "Dear {{name}}"), "value", OPERAND),
        (condition("=", "{{a"), "value", OPERAND),
        (condition("=", ["{{a}}"]), "value", OPERAND),
        (condition("=", {"a": ["{{a}}"]}), "value", OPERAND),
        (condition("=", {"type": "const"}), "value", OPERAND),
        (condition("=", {"type": "const", "value": 1, "x": 2}), "value", OPERAND),
        (condition("=", {"type": "expr", "expr": {"src": "1"}}), "value", OPERAND),
        (condition("=", "5", type="number"), "value", OPERAND),
        (condition("=", 1, type="boolean"), "value", OPERAND),
        (condition("=", "x", type="number", options={"typeValidation": "loose"}), "value", OPERAND),
        (condition(">", None), "value", OPERAND),
        (condition(">", True), "value", OPERAND),
        (condition(">", [1]), "value", OPERAND),
        (condition(">", "soon", type="date"), "value", OPERAND),
        (condition("after", "2024-02-30"), "value", OPERAND),
        (condition("between", 5), "value", OPERAND),
        (condition("between", [1]), "value", OPERAND),
        (condition("between", [1, 2, 3]), "value", OPERAND),
        (condition("between", "{{range}}"), "value", OPERAND),
        (condition("between", [5, 1]), "value", OPERAND),
        (condition("notBetween", ["2024-02-01", "2024-01-01"], type="date"), "value", OPERAND),
        (condition("between", [1, "x"]), "value", OPERAND),
        (condition("between", [1, None]), "value[1]", OPERAND),
        (condition("between", ["a", 1], type="number"), "value[0]", OPERAND),
        (condition("in", "a"), "value", OPERAND),
        (condition("in", []), "value", OPERAND),
        (condition("not_in", [1, "a"], type="number"), "value[1]", OPERAND),
        (condition("contains", ""), "value", OPERAND),
        (condition("contains", 5, type="string"), "value", OPERAND),
        (condition("startsWith", ""), "value", OPERAND),
        (condition("endsWith", 5), "value", OPERAND),
        (condition("endsWith", None), "value", OPERAND),
        (condition("arrayLength", -1), "value", OPERAND),
        (condition("arrayLength", 1.5), "value", OPERAND),
        (condition("arrayLength", "2"), "value", OPERAND),
        (condition("hasProperty", ""), "value", OPERAND),
        (condition("hasProperty", 1), "value", OPERAND),
        (condition("exists", "x"), "value", OPERAND),
        (condition("isTrue", False), "value", OPERAND),
        (condition("matches", ""), "value", OPERAND),
        (condition("matches", 5), "value", OPERAND),
        (condition("matches", "{{pattern}}"), "value", OPERAND),
        (condition("matches", "("), "value", PATTERN),
        (condition("matches", "(?=a)b"), "value", PATTERN),
        (condition("matches", r"(a)\1"), "value", PATTERN),
        (condition("matches", "((a{100}){100}){100}"), "value", PATTERN),
        (condition("matches", "a" * 1_001), "value", PATTERN),
        (condition("matches", "\ud800"), "value", PATTERN),
        (condition("=", "x" * 20_001), "value", SIZE),
        (condition("=", [0] * 2_000), "value", SIZE),
        (condition("in", [0] * 1_001), "value", SIZE),
        (condition("=", float("nan")), "value", SIZE),
        (condition("=", {"a": [10**400]}), "value", SIZE),
        (nested(DEEPEST_GROUP + 1), "conditions[0]." * (DEEPEST_GROUP - 1) + "conditions[0]", SIZE),
        (expr("1 +"), "expr.src", EXPRESSION),
        (expr("__context__.x"), "expr.src", EXPRESSION),
        (expr("true"), "expr.src", EXPRESSION),
        (expr("__trigger__.at < $millis()"), "expr.src", EXPRESSION),
        (expr("$random() < __trigger__.share"), "expr.src", EXPRESSION),
        (expr("__trigger__.x = $eval('1')"), "expr.src", EXPRESSION),
        (expr("__trigger__.x & '" + "x" * 8_200 + "'"), "expr.src", EXPRESSION),
        (expr(5), "expr.src", SHAPE),
        (expr("__trigger__.x", default="no"), "default", SHAPE),
        (expr("__trigger__.x", optional=True), "optional", SHAPE),
        ({"type": "expr"}, "expr", SHAPE),
        ({"type": "expr", "expr": {"src": "__trigger__.x", "type": "js"}}, "expr.type", SHAPE),
        ({"type": "expr", "expr": {"src": "__trigger__.x", "lang": "x"}}, "expr.lang", SHAPE),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:50],
)
def test_a_broken_filter_is_refused_with_the_place(document: Any, path: str, rule: FilterRule) -> None:
    assert problems(document) == [(path, rule)]


def test_every_problem_is_told_at_once_with_its_path() -> None:
    document = {
        "combinator": "AND",
        "options": {"case": True},
        "conditions": [
            {"variable": "a..b", "operator": "betwen", "value": 1, "type": "decimal"},
            {"operator": "OR", "conditions": [condition("in", "a"), expr("$now() = __context__.x")]},
            by_ui({"type": "number", "operation": "regex"}, rightValue="("),
        ],
    }
    assert problems(document, "filter") == [
        ("filter.options.case", SHAPE),
        ("filter.conditions[0].variable", PATH),
        ("filter.conditions[0].operator", OPERATOR),
        ("filter.conditions[0].type", TYPE),
        ("filter.conditions[1].conditions[0].value", OPERAND),
        ("filter.conditions[1].conditions[1].expr.src", EXPRESSION),
        ("filter.conditions[1].conditions[1].expr.src", EXPRESSION),
        ("filter.conditions[2].operator.type", TYPE),
    ]


def test_an_error_is_one_of_the_engine_and_says_how_many_problems_there_are() -> None:
    with pytest.raises(EngineError, match=r"^filter.extra: unknown field; .* \(and 1 more\)$") as raised:
        parse(condition("in", "a", extra=1), "filter")
    assert (raised.value.code, raised.value.path) == ("FILTER_INVALID", "filter.extra")
    assert raised.value.at("elsewhere") is raised.value


def test_an_unknown_operator_is_told_the_one_that_was_meant() -> None:
    with pytest.raises(FilterError, match="did you mean starts_with"):
        parse(condition("start_with", "a"))


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.name)
def test_an_operator_is_refused_for_every_type_that_it_is_not_for(spelling: Any) -> None:
    types = RULES[spelling.operator].types if spelling.type is None else (spelling.type,)
    for as_type in FieldType:
        if as_type in types or as_type is FieldType.ANY:
            continue
        value = EXAMPLES[spelling.operator, types[0]].operand if isinstance(spelling.operand, Undefined) else None
        assert problems(condition(spelling.name, value, type=as_type)) == [("type", TYPE)]


def test_a_filter_has_a_bounded_number_of_conditions_and_groups() -> None:
    many = [condition("exists")] * (MOST_CONDITIONS - 1)
    parse({"combinator": "OR", "conditions": many})
    assert problems({"combinator": "OR", "conditions": [*many, condition("exists")]}) == [
        (f"conditions[{MOST_CONDITIONS - 1}]", SIZE)
    ]
    groups = [{"operator": "AND", "conditions": []}] * MOST_CONDITIONS
    assert problems({"operator": "OR", "conditions": groups}) == [(f"conditions[{MOST_CONDITIONS - 1}]", SIZE)]
    parse(nested(DEEPEST_GROUP))
    references = ["{{a}}"] * MOST_CONDITIONS
    assert problems(condition("in", references)) == [("value", SIZE)]
    parse(condition("in", references[1:]))


def test_of_very_many_problems_the_first_are_told() -> None:
    assert len(problems({str(number): 1 for number in range(5_000)} | condition("exists"))) == 500


def test_what_an_editor_leaves_on_the_right_of_an_operator_without_one_is_no_mistake() -> None:
    for value in (None, ""):
        assert parse(condition("exists", value)) == parse(condition("exists"))
    single = {"type": "string", "operation": "isEmpty", "singleValue": True}
    assert parse(by_ui(single, rightValue="stale")) == parse(condition("is_empty"))


def test_the_right_type_is_that_of_the_constant_on_the_right() -> None:
    operator = {"type": "array", "operation": "arrayLength", "rightType": "number"}
    assert parse(by_ui(operator, rightValue=2)) == parse(condition("arrayLength", 2))
    operator = {"type": "array", "operation": "arrayContains", "rightType": "string"}
    assert parse(by_ui(operator, rightValue="{{y}}")) == parse(condition("arrayContains", "{{y}}"))
    assert parse(condition("equals", 1, type=None)).type is FieldType.ANY  # type: ignore[union-attr]
    assert parse(condition("equals", 1)).operator is Operator.EQUALS  # type: ignore[union-attr]
