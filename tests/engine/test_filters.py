"""Filters: every operator under every name, and what the three vocabularies mean."""

import json
from pathlib import Path as File
from typing import Any

import pytest

from engine.filters.describing import describe
from engine.filters.faults import FilterRule
from engine.filters.matching import explain, matches
from engine.filters.paths import Path
from engine.filters.reading import parse
from engine.filters.table import BY_NAME, RULES, SPELLINGS, FieldType, Operator, Spelling, Vocabulary
from engine.filters.tree import EVERYTHING, Combinator, Comparison, Filter, Group, dump
from engine.json_types import Undefined
from engine.values import Const
from tests.engine.filter_examples import EXAMPLES, Examples

REFERENCE = File(__file__).parents[2] / "docs" / "filters.md"

LOOSE = {"typeValidation": "loose"}
DEAL = {
    "operation": "UPDATE",
    "before": {"status": "open", "amount": 100},
    "after": {"status": "won", "amount": 250, "tags": ["vip", "eu"], "owner": None, "title": "Deal 7"},
    "changed_columns": ["status", "amount"],
}


def compared(name: str, value: Any = None, left: str = "x", **more: Any) -> dict[str, Any]:
    """A condition as the engine's documents write it."""
    return {"field": left, "operator": name, "value": value, **more}


def passes(document: Any, payload: Any) -> bool:
    return matches(parse(document), payload)


def written(vocabulary: Vocabulary, name: str, as_type: FieldType, value: Any) -> dict[str, Any]:
    """The same condition on `x` in one of the three forms."""
    match vocabulary:
        case Vocabulary.API:
            return {"variable": "{{variable.x}}", "operator": name, "value": value, "type": as_type}
        case Vocabulary.UI:
            return {
                "id": "1", "leftValue": "{{ payload.x }}", "operator": {"type": as_type, "operation": name},
                "rightValue": value,
            }  # fmt: skip
        case Vocabulary.ENGINE:
            return {"field": "x", "operator": name, "value": value, "type": as_type}


def examples_of(spelling: Spelling, as_type: FieldType) -> Examples:
    found = EXAMPLES[spelling.operator, as_type]
    if spelling.operand is False:
        return Examples(False, (False,), (True, None), found.means_nothing)
    return found


CASES = [
    pytest.param(spelling, as_type, id=f"{spelling.name}-{as_type}")
    for spelling in SPELLINGS
    for as_type in (RULES[spelling.operator].types if spelling.type is None else (spelling.type,))
]


@pytest.mark.parametrize("vocabulary", list(Vocabulary))
@pytest.mark.parametrize(("spelling", "as_type"), CASES)
def test_every_name_of_every_operator_holds_for_what_it_should_and_nothing_else(
    spelling: Spelling, as_type: FieldType, vocabulary: Vocabulary
) -> None:
    examples = examples_of(spelling, as_type)
    operand = examples.operand if isinstance(spelling.operand, Undefined) else None
    tree = parse(written(vocabulary, spelling.name, as_type, operand))
    assert examples.holds
    assert examples.fails
    for value in examples.holds:
        assert matches(tree, {"x": value}), value
    for value in examples.fails:
        found = explain(tree, {"x": value})
        assert (found.holds, found.reason) == (False, None), value
    for value in examples.means_nothing:
        found = explain(tree, {"x": value})
        assert not found.holds, value
        assert found.reason, value
    assert matches(tree, {}) is matches(tree, {"x": None})


def test_an_operator_with_one_type_needs_no_type_said() -> None:
    for spelling in SPELLINGS:
        types = RULES[spelling.operator].types if spelling.type is None else (spelling.type,)
        if len(types) == 1:
            value = EXAMPLES[spelling.operator, types[0]].operand if isinstance(spelling.operand, Undefined) else None
            assert parse(compared(spelling.name, value)) == parse(compared(spelling.name, value, type=types[0]))


def test_each_vocabulary_has_all_the_operators_that_its_documents_name() -> None:
    old = "equals not_equals contains not_contains greater_than less_than between in not_in is_empty is_not_empty"
    listed = {
        Vocabulary.API: f"{old} starts_with ends_with after before",
        Vocabulary.UI: (
            "equals not_equals contains not_contains startsWith endsWith regex isEmpty isNotEmpty greaterThan lessThan "
            "greaterThanOrEqual lessThanOrEqual between notBetween isTrue isFalse after before afterOrEqual "
            "beforeOrEqual dateEquals dateNotEquals dateIsEmpty arrayContains arrayNotContains arrayLength exists "
            "notExists hasProperty notHasProperty"
        ),
        Vocabulary.ENGINE: (
            f"{old} starts_with ends_with regex eq = ne != gt > gte >= lt < lte <= matches is_null is_not_null"
        ),
    }
    for vocabulary, names in listed.items():
        assert {name for name in names.split() if vocabulary not in BY_NAME[name].found_in} == set()


def test_every_operator_can_be_written_as_itself() -> None:
    for operator in Operator:
        spelling = BY_NAME[operator.value]
        assert (spelling.operator, spelling.type, isinstance(spelling.operand, Undefined)) == (operator, None, True)


def test_groups_of_all_vocabularies_nest_in_each_other() -> None:
    document = {
        "combinator": "AND",
        "conditions": [
            {"variable": "{{variable.operation}}", "operator": "equals", "value": "UPDATE", "type": "string"},
            {
                "operator": "or",
                "conditions": [
                    {"field": "after.amount", "operator": ">", "value": 1000},
                    {
                        "combinator": "and",
                        "options": {"caseSensitive": True, "typeValidation": "strict", "version": 2},
                        "conditions": [
                            {
                                "id": "a",
                                "leftValue": "{{trigger.after.title}}",
                                "operator": {"type": "string", "operation": "startsWith"},
                                "rightValue": "Deal",
                            },
                            {"type": "expr", "expr": {"src": "'vip' in __trigger__.after.tags"}},
                        ],
                    },
                ],
            },
        ],
    }
    assert passes(document, DEAL)
    assert not passes(document, {**DEAL, "after": {"title": "deal 7", "tags": ["vip"]}})
    assert not passes(document, {**DEAL, "after": {"title": "Deal 7", "tags": []}})
    assert passes(document, {**DEAL, "after": {"amount": 1001}})


def test_no_filter_and_an_empty_group_of_the_engine_let_every_event_pass() -> None:
    for document in (None, {}, {"operator": "AND", "conditions": []}, {"operator": "OR", "conditions": []}):
        assert parse(document) == EVERYTHING
        assert passes(document, DEAL)
        assert passes(document, None)


def test_the_activation_of_a_lead_passes_and_its_deactivation_and_insert_do_not() -> None:
    activation = {
        "combinator": "AND",
        "conditions": [
            {"variable": "{{variable.operation}}", "operator": "equals", "value": "UPDATE"},
            {"variable": "{{variable.before.is_active}}", "operator": "equals", "value": False, "type": "boolean"},
            {"variable": "{{variable.after.is_active}}", "operator": "equals", "value": True, "type": "boolean"},
        ],
    }
    assert passes(activation, {"operation": "UPDATE", "before": {"is_active": False}, "after": {"is_active": True}})
    assert not passes(activation, {"operation": "UPDATE", "before": {"is_active": True}, "after": {"is_active": False}})
    assert not passes(activation, {"operation": "INSERT", "before": None, "after": {"is_active": True}})


def test_case_matters_only_where_it_is_said() -> None:
    for name, part in (("contains", "EAL"), ("startsWith", "deal"), ("endsWith", "AL 7"), ("regex", "^deal")):
        assert passes(compared(name, part), {"x": "Deal 7"})
        assert not passes(compared(name, part, options={"caseSensitive": True}), {"x": "Deal 7"})
    assert passes(compared("contains", "STRASSE"), {"x": "Hauptstraße"})
    group = {"combinator": "AND", "options": {"caseSensitive": True}, "conditions": [compared("contains", "EAL")]}
    assert not passes(group, {"x": "Deal 7"})
    group["conditions"] = [compared("contains", "EAL", options={"caseSensitive": False})]
    assert passes(group, {"x": "Deal 7"})


@pytest.mark.parametrize(
    ("name", "as_type", "operand", "value"),
    [
        ("equals", "number", "5", 5),
        ("equals", "number", 5, "5.0"),
        ("equals", "string", "5", 5),
        ("equals", "string", "5", 5.0),
        ("equals", "string", "true", True),
        ("isTrue", "boolean", None, "TRUE"),
        ("isTrue", "boolean", None, 1),
        ("isFalse", "boolean", None, "false"),
        ("greaterThan", "number", 9, "10"),
        ("between", "number", ["1", 5], "3"),
        ("in", "number", ["1", 2], "2"),
        ("contains", "string", 20, 2024),
        ("after", "date", "2024-05-01", 1714564800000),
        ("dateEquals", "date", 1714564800000, "2024-05-01T12:00:00Z"),
    ],
)
def test_loose_validation_converts_both_sides_to_the_type(name: str, as_type: str, operand: Any, value: Any) -> None:
    loose = compared(name, operand, type=as_type, options=LOOSE)
    assert passes(loose, {"x": value})
    text = str(value).lower()
    assert explain(parse(loose), {"x": ["not", text]}).reason


@pytest.mark.parametrize("value", [2, 0.5, "yes", "", []])
def test_loose_validation_does_not_guess_what_is_true(value: Any) -> None:
    for name in ("isTrue", "isFalse"):
        assert explain(parse(compared(name, options=LOOSE)), {"x": value}).reason


@pytest.mark.parametrize("value", ["five", "", "0x10", "1_000", " 5", "1" * 301, "1e400", True, [5], {}, "٣"])
def test_loose_validation_does_not_guess_a_number(value: Any) -> None:
    tree = parse(compared("gte", 0, type="number", options=LOOSE))
    assert explain(tree, {"x": value}).reason


def test_numbers_are_compared_exactly() -> None:
    assert passes(compared(">", 2**53), {"x": 2**53 + 1})
    assert passes(compared("=", "12345678901234567890", type="number", options=LOOSE), {
        "x": 12345678901234567890
    })  # fmt: skip
    assert not passes(compared("=", 1.0), {"x": True})
    assert explain(parse(compared(">=", 1)), {"x": float("nan")}).reason
    assert passes(compared("between", [3, 3]), {"x": 3})


def test_texts_that_are_dates_are_put_in_order_as_instants() -> None:
    assert passes(compared("<", "2024-05-01T13:00:00Z"), {"x": "2024-05-01T14:00:00+02:00"})
    assert not passes(compared("<", "2024-05-01T13:00:00Z", type="string"), {"x": "2024-05-01T14:00:00+02:00"})


def test_a_value_may_be_a_reference_to_the_payload() -> None:
    grown = compared("gt", "{{variable.before.amount}}", "after.amount")
    assert passes(grown, DEAL)
    assert not passes(grown, {"before": {"amount": 250}, "after": {"amount": 250}})
    assert passes(compared("between", ["{{ before.amount }}", 300], "after.amount"), DEAL)
    assert passes(compared("in", ["lost", "{{after.status}}"], "after.status"), DEAL)
    assert passes(compared("in", "{{ changed_columns }}", left="changed_columns[1]"), DEAL)
    assert explain(parse(compared("in", "{{after.title}}", "after.status")), DEAL).reason
    assert explain(parse(compared("between", ["{{none}}", 3], "after.amount")), DEAL).reason
    assert explain(parse(compared("startsWith", "{{none}}", "after.title")), DEAL).reason
    assert explain(parse(compared("hasProperty", "{{none}}", "after")), DEAL).reason
    assert explain(parse(compared("arrayLength", "{{none}}", "changed_columns")), DEAL).reason


def test_text_with_braces_is_written_as_a_constant() -> None:
    assert passes(compared("=", {"type": "const", "value": "{{x}}"}), {"x": "{{x}}"})
    assert passes(compared("=", {"type": "const", "value": {"type": "const"}}), {"x": {"type": "const"}})
    assert passes(compared("in", [{"type": "const", "value": "{{x}}"}, 1]), {"x": "{{x}}"})


def test_a_condition_in_jsonata_sees_the_payload() -> None:
    grown = {"type": "expr", "expr": {"src": "__trigger__.after.amount > __trigger__.before.amount * 2"}}
    assert passes(grown, DEAL)
    assert not passes(grown, {**DEAL, "before": {"amount": 200}})
    assert passes({"type": "expr", "expr": "$exists(__trigger__.after)"}, DEAL)


def test_a_condition_in_jsonata_that_cannot_be_decided_is_not_a_match_and_says_why() -> None:
    for source, payload in (
        ("__trigger__.after.amount > 5", {}),
        ("__trigger__.after.amount", DEAL),
        ("__trigger__.after.amount > 'x'", DEAL),
        ("__trigger__.after.x[y = 1].z", {"after": {"x": []}}),
    ):
        found = explain(parse({"type": "expr", "expr": {"src": source}}), payload)
        assert not found.holds
        assert found.reason
    assert passes({"type": "expr", "expr": {"src": "__trigger__.x > 5"}, "default": True}, {})
    assert passes({"type": "expr", "expr": {"src": "__trigger__.x[y = 1].z"}, "default": True}, {"x": []})
    assert not passes({"type": "expr", "expr": {"src": "__trigger__.x > 5"}, "default": False}, {})


def test_an_explanation_says_for_every_condition_what_was_compared() -> None:
    document = {
        "operator": "AND",
        "conditions": [
            compared("=", "lost", "after.status"),
            {"operator": "OR", "conditions": [compared(">", "{{before.amount}}", "after.amount"), compared("gt", 1)]},
        ],
    }
    found = explain(parse(document), DEAL, "filter")
    assert (found.path, found.holds) == ("filter", False)
    first, group = found.parts
    assert (first.path, first.text, first.holds) == ("filter.conditions[0]", 'after.status = "lost"', False)
    assert (first.left, first.right, first.reason) == ("won", "lost", None)
    assert group.holds
    grown, missing = group.parts
    assert (grown.path, grown.holds) == ("filter.conditions[1].conditions[0]", True)
    assert (grown.left, grown.right) == (250, 100)
    assert (missing.holds, missing.left, missing.reason) == (False, None, "null has no place in an order")


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([], "every event"),
        (
            [compared("=", "UPDATE", "operation"), compared("!=", "won", "before.s"), compared("=", "won", "after.s")],
            'operation = "UPDATE" and s changed to "won"',
        ),
        ([compared("isTrue", None, "a")], "a = true"),
        ([compared("after", "2024-05-01", "due")], 'due is after "2024-05-01"'),
        ([compared("between", [1, "{{b}}"], "a")], "a is between 1 and b"),
        ([compared("in", ["x", 2], "a")], 'a is one of "x", 2'),
        ([compared("exists", None, "variable.payload")], "payload.payload exists"),
        ([compared("contains", "X", "a", options={"caseSensitive": True})], 'a contains "X" (case matters)'),
        (
            [{"operator": "OR", "conditions": [compared("lt", 1), compared("is_empty")]}, compared("ne", 5)],
            "(x < 1 or x is empty) and x ≠ 5",
        ),
        ([{"type": "expr", "expr": "__trigger__.a =\n  1"}], "{__trigger__.a = 1}"),
    ],
)
def test_a_filter_can_be_said_in_words(conditions: list[Any], words: str) -> None:
    words = words.replace("s changed", "after.s changed")
    assert describe(parse({"operator": "AND", "conditions": conditions})) == words


def test_a_filter_keeps_what_it_was_read_from_when_the_document_changes_later() -> None:
    document: dict[str, Any] = compared("equals", [1, {"a": 2}])
    tree = parse(document)
    document["value"][1]["a"] = 3
    assert matches(tree, {"x": [1, {"a": 2}]})


def test_what_does_not_matter_to_an_operator_is_not_in_the_normal_form() -> None:
    options = {"caseSensitive": True, "typeValidation": "loose"}
    plain = Comparison(Path(("x",)), Operator.EQUALS, Const(1))
    assert parse(compared("eq", 1, options=options)) == plain
    assert parse(compared("exists", type="number", options=options)) == parse(compared("is_not_null"))
    assert parse(compared("arrayContains", 1, options=options)) == parse(compared("arrayContains", 1, options=LOOSE))
    assert parse(compared("isEmpty", type="date")) == parse(compared("is_empty"))
    group: Filter = Group(Combinator.OR, (plain,))
    assert parse({"combinator": "or", "options": options, "conditions": [compared("=", 1)]}) == group
    assert parse(dump(group)) == group


def operator_table() -> str:
    """The operators as the reference page shows them."""
    lines = ["| operator | API | UI | Engine | types | right side |", "|---|---|---|---|---|---|"]
    for operator, rule in RULES.items():
        types = "all" if len(rule.types) == len(FieldType) else ", ".join(rule.types)
        names = " | ".join(_names(operator, vocabulary) for vocabulary in Vocabulary)
        lines.append(f"| {operator} | {names} | {types} | {rule.operand} |")
    return "\n".join(lines)


def _names(operator: Operator, vocabulary: Vocabulary) -> str:
    return ", ".join(
        f"`{each.name}`" + (f" ({_said(each)})" if each.type else "")
        for each in SPELLINGS
        if each.operator is operator and vocabulary in each.found_in
    )


def _said(spelling: Spelling) -> str:
    return str(spelling.type) if isinstance(spelling.operand, Undefined) else json.dumps(spelling.operand)


def test_the_reference_page_shows_the_operators_as_they_are() -> None:
    assert operator_table() in REFERENCE.read_text(encoding="utf-8")


def test_the_reference_page_names_every_rule() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    assert [rule for rule in FilterRule if f"`{rule}`" not in page] == []


def test_the_examples_of_the_reference_page_are_filters() -> None:
    blocks = REFERENCE.read_text(encoding="utf-8").split("```json\n")[1:]
    assert len(blocks) >= 4
    for block in blocks:
        parse(json.loads(block.split("```")[0]))
