"""Laws of filters over random trees, random payloads and documents that are no filters at all."""

import copy
import json
import pickle
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.expression import compile_expression
from engine.filters.comparing import compare
from engine.filters.describing import describe
from engine.filters.faults import FilterError
from engine.filters.kinds import NoMeaning, number_in, same
from engine.filters.matching import Finding, explain, matches
from engine.filters.paths import Path, parse_path
from engine.filters.reading import parse
from engine.filters.table import BY_NAME, RULES, SPELLINGS, FieldType, OperandKind, Operator, Spelling, Vocabulary
from engine.filters.tree import Combinator, Comparison, ExpressionCondition, Filter, Group, dump
from engine.json_types import UNDEFINED
from tests.engine.filter_examples import EXAMPLES

# Few words, so that filters and payloads meet; and the values that are two things at once.
WORDS = ["a", "b", "c", "A", "won", "", "1", "2", "1.0", "true", "2024-05-01", "2024-05-01T12:00:00Z", "{{a}}", "ß"]
NUMBERS: list[Any] = [0, 1, 2, 1.0, 2.5, -1, 10**20, 1e308, 1714564800000]
SCALARS = st.sampled_from([None, True, False, *NUMBERS, *WORDS]) | st.text(max_size=5) | st.floats(allow_nan=False)
KEYS = st.sampled_from(["a", "b", "c", "x y", "payload", "0", "type", "conditions"])
JSONS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
PAYLOADS = st.dictionaries(KEYS, JSONS, max_size=5) | JSONS
PATHS = st.lists(KEYS, max_size=3).map(lambda members: Path(tuple(members)))
EXPRESSIONS = [
    "__trigger__.a = 1", "__trigger__.a > __trigger__.b", "$exists(__trigger__.a.b)", "'a' in __trigger__.b",
    "__trigger__.a ? __trigger__.b : __trigger__.c", "__trigger__", "$count(__trigger__.a[$ > 1]) > 0",
    "__trigger__.a.`x y` & 'x' = 'ax'", "$match(__trigger__.a, /a+/).match = 'a'",
]  # fmt: skip


@st.composite
def documents_of_conditions(draw: st.DrawFn, spellings: Sequence[Spelling] = SPELLINGS) -> dict[str, Any]:
    """A condition in one of the vocabularies, usually a sound one."""
    spelling = draw(st.sampled_from(spellings))
    types = RULES[spelling.operator].types if spelling.type is None else (spelling.type,)
    as_type = draw(st.sampled_from(types))
    examples = EXAMPLES[spelling.operator, as_type]
    operand = draw(st.sampled_from([examples.operand, examples.operand, "{{ a }}", "{{b.c}}", UNDEFINED]))
    if operand is UNDEFINED:
        operand = draw(JSONS)
    if RULES[spelling.operator].operand is OperandKind.NONE or spelling.name in ("isTrue", "isFalse"):
        operand = None
    left = str(draw(PATHS))
    options = draw(st.sampled_from([None, {"caseSensitive": True}, {"typeValidation": "loose"}]))
    document = in_words_of(draw(st.sampled_from(Vocabulary)), left, spelling.name, as_type, operand)
    return document if options is None else {**document, "options": options}


def in_words_of(vocabulary: Vocabulary, left: str, name: str, as_type: str, operand: Any) -> dict[str, Any]:
    match vocabulary:
        case Vocabulary.API:
            return {"variable": f"{{{{{left}}}}}", "operator": name, "value": operand, "type": as_type}
        case Vocabulary.UI:
            operator = {"type": as_type, "operation": name}
            return {"id": "x", "leftValue": left, "operator": operator, "rightValue": operand}
        case Vocabulary.ENGINE:
            return {"field": left, "operator": name, "value": operand, "type": as_type}


def sound(document: dict[str, Any]) -> bool:
    try:
        parse(document)
    except FilterError:
        return False
    return True


CONDITIONS = documents_of_conditions().filter(sound) | st.sampled_from(EXPRESSIONS).flatmap(
    lambda source: st.sampled_from(
        [{"type": "expr", "expr": {"src": source}}, {"type": "expr", "expr": source, "default": True}]
    )
)
DOCUMENTS = st.recursive(
    CONDITIONS,
    lambda inner: st.builds(
        lambda key, word, parts: {key: word, "conditions": parts},
        st.sampled_from(["combinator", "operator"]),
        st.sampled_from(["AND", "OR", "and", "or"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)
FILTERS = DOCUMENTS.map(parse)


def conditions(found: Finding) -> list[Finding]:
    return [each for part in found.parts for each in conditions(part)] if found.parts else [found]


@settings(max_examples=500)
@given(FILTERS)
def test_a_filter_that_is_written_down_reads_back_as_itself(tree: Filter) -> None:
    document = dump(tree)
    assert parse(document) == tree
    assert parse(json.loads(json.dumps(document))) == tree
    assert dump(parse(document)) == document
    assert pickle.loads(pickle.dumps(tree)) == tree
    assert describe(tree)


@settings(max_examples=500)
@given(DOCUMENTS, PAYLOADS)
def test_matching_always_answers_changes_nothing_and_agrees_with_its_explanation(document: Any, payload: Any) -> None:
    before = copy.deepcopy((document, payload))
    tree = parse(document)
    answer = matches(tree, payload)
    found = explain(tree, payload)
    assert answer is found.holds
    assert matches(tree, payload) is answer
    assert (document, payload) == before
    for each in conditions(found):
        assert each.text
        assert not (each.holds and each.reason)


@settings(max_examples=300)
@given(FILTERS, FILTERS, PAYLOADS)
def test_groups_are_and_and_or(one: Filter, other: Filter, payload: Any) -> None:
    first, second = matches(one, payload), matches(other, payload)
    assert matches(Group(Combinator.AND, (one, other)), payload) is (first and second)
    assert matches(Group(Combinator.OR, (one, other)), payload) is (first or second)
    assert matches(Group(Combinator.AND, (other, one)), payload) is (first and second)
    assert matches(Group(Combinator.OR, (one,)), payload) is first


NEGATED = {rule.negates: operator for operator, rule in RULES.items() if rule.negates is not None}
NEGATIONS = NEGATED | {positive: operator for operator, positive in NEGATED.items()}


def negation(tree: Filter) -> Filter:
    """The filter by De Morgan's rules; conditions must have a negated operator."""
    if isinstance(tree, Group):
        turned = Combinator.OR if tree.combinator is Combinator.AND else Combinator.AND
        return Group(turned, tuple(map(negation, tree.parts)))
    assert isinstance(tree, Comparison)
    return Comparison(tree.left, NEGATIONS[tree.operator], tree.right, tree.type, tree.case_sensitive, tree.loose)


NEGATABLE = st.recursive(
    documents_of_conditions([each for each in SPELLINGS if each.operator in NEGATIONS]).filter(sound),
    lambda inner: st.builds(
        lambda word, parts: {"combinator": word, "conditions": parts},
        st.sampled_from(["AND", "OR"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
).map(parse)


@settings(max_examples=500)
@given(NEGATABLE, PAYLOADS)
def test_de_morgan_holds_wherever_every_comparison_means_something(tree: Filter, payload: Any) -> None:
    opposite = negation(tree)
    meaningless = [each.reason is not None for each in conditions(explain(tree, payload))]
    assert [each.reason is not None for each in conditions(explain(opposite, payload))] == meaningless
    if not any(meaningless):
        assert matches(opposite, payload) is not matches(tree, payload)
    assert negation(opposite) == tree


@settings(max_examples=500)
@given(st.sampled_from(SPELLINGS), st.data(), PAYLOADS)
def test_one_condition_in_three_vocabularies_is_one_filter(spelling: Any, data: st.DataObject, payload: Any) -> None:
    types = RULES[spelling.operator].types if spelling.type is None else (spelling.type,)
    as_type = data.draw(st.sampled_from(types))
    implied = spelling.name in ("isTrue", "isFalse") or RULES[spelling.operator].operand is OperandKind.NONE
    operand = None if implied else EXAMPLES[spelling.operator, as_type].operand
    left = str(data.draw(PATHS))
    names = [
        each.name
        for each in SPELLINGS
        if (each.operator, each.type, each.operand) == (spelling.operator, spelling.type, spelling.operand)
    ]
    trees = [
        parse({"combinator": "AND", "conditions": [in_words_of(vocabulary, left, name, as_type, operand)]})
        for vocabulary in Vocabulary
        for name in names
    ]
    assert all(tree == trees[0] for tree in trees)
    assert len({matches(tree, payload) for tree in trees}) == 1


@given(st.sampled_from(["contains", "startsWith", "endsWith", "regex"]), st.text("abcXYZ0 äÖ", max_size=6), st.data())
def test_letters_of_either_case_are_the_same_to_what_looks_into_texts(
    name: str, text: str, data: st.DataObject
) -> None:
    part = data.draw(st.text("abcXYZ0 äÖ", min_size=1, max_size=3) | st.sampled_from([text, text[:2], text[-2:]]))
    assume(part)
    tree = parse({"field": "x", "operator": name, "value": part})
    answer = matches(tree, {"x": text})
    for same_part in (part.upper(), part.lower(), part.swapcase()):
        for same_text in (text.upper(), text.lower(), text.swapcase()):
            assert matches(parse({"field": "x", "operator": name, "value": same_part}), {"x": same_text}) is answer
    exact = parse({"field": "x", "operator": name, "value": part, "options": {"caseSensitive": True}})
    assert answer or not matches(exact, {"x": text})


ORDERING = (Operator.GREATER_THAN, Operator.EQUALS, Operator.LESS_THAN)


@settings(max_examples=300)
@given(
    st.sampled_from([FieldType.NUMBER, FieldType.STRING, FieldType.DATE]),
    st.booleans(),
    SCALARS | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    SCALARS | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
)
def test_of_two_values_with_an_order_one_is_greater_or_they_are_equal(
    as_type: FieldType, loose: bool, one: Any, other: Any
) -> None:
    def answers(operator: Operator, left: Any, right: Any) -> Any:
        return compare(Comparison(Path(()), operator, None, as_type, loose=loose), left, right)

    found = [answers(operator, one, other) for operator in ORDERING]
    if isinstance(found[0], NoMeaning):
        assert isinstance(found[2], NoMeaning)
        return
    assert found.count(True) == 1
    assert answers(Operator.LESS_THAN, other, one) is found[0]
    assert answers(Operator.GREATER_THAN_OR_EQUAL, one, other) is (found[0] or found[1])
    assert answers(Operator.LESS_THAN_OR_EQUAL, one, other) is (found[1] or found[2])
    assert answers(Operator.BETWEEN, one, [other, other]) is found[1]
    assert answers(Operator.IN, one, [other]) is found[1]


@given(JSONS, JSONS)
def test_values_are_the_same_when_their_json_is(one: Any, other: Any) -> None:
    assert same(one, copy.deepcopy(one))
    assert same(one, other) is same(other, one)
    if same(one, other):
        assert type(one) is type(other) or {type(one), type(other)} == {int, float}


PIECES: list[Any] = [
    None, 0, -1, 1.5, True, "", "x", "a b", "{{", "{{a}}", "{{a}} b", "AND", "or", "XOR", [], {}, [1], [1, 2], [2, 1],
    "equals", "between", "in", "regex", "isTrue", "hasProperty", "number", "dateTime", "loose", 10**400, "\ud800", "(",
    {"type": "const", "value": 1}, {"type": "const"}, {"type": "expr", "expr": {"src": "1+"}}, "expr", [10**400],
    {"src": "$now()"},
    {"type": "any", "operation": "equals"}, {"conditions": []}, {"caseSensitive": "x"}, {"field": "a"}, "9" * 5000,
]  # fmt: skip
MEMBERS = [
    "combinator", "operator", "conditions", "options", "variable", "leftValue", "rightValue", "field", "value", "type",
    "operation", "rightType", "singleValue", "id", "expr", "src", "default", "caseSensitive", "typeValidation", "x",
]  # fmt: skip
ANYTHING = st.recursive(
    st.sampled_from(PIECES) | st.sampled_from([*BY_NAME]) | SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=15,
)


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a document: the container and the key or index in it."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [spot for key, member in members for spot in [(value, key), *spots(member)]]


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A sound document with a few places replaced, dropped or added to."""
    document = copy.deepcopy(draw(DOCUMENTS))
    for _ in range(draw(st.integers(1, 3))):
        places = spots(document)
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["drop", "replace", "add"])):
            case "drop":
                del container[key]
            case "replace":
                container[key] = copy.deepcopy(draw(st.sampled_from(PIECES)))
            case "add" if isinstance(container, dict):
                container[draw(st.sampled_from(MEMBERS))] = copy.deepcopy(draw(st.sampled_from(PIECES)))
    return document


def read(document: Any) -> Filter | FilterError:
    try:
        return parse(document, "filter")
    except FilterError as error:
        return error


@settings(max_examples=1_000)
@given(ANYTHING | damaged(), PAYLOADS)
def test_reading_gives_a_filter_that_works_or_the_problems_and_nothing_else(document: Any, payload: Any) -> None:
    before = copy.deepcopy(document)
    tree = read(document)
    assert document == before
    if not isinstance(tree, Group | Comparison | ExpressionCondition):
        assert tree.problems
        assert all(problem.path.startswith("filter") and problem.message for problem in tree.problems)
        return
    assert parse(dump(tree)) == tree
    assert describe(tree)
    assert matches(tree, payload) is explain(tree, payload).holds


@given(
    st.text(max_size=12) | st.lists(st.sampled_from(["a", ".", "[", "]", "0", '"', "'", "{{", "}}", " "])).map("".join)
)
def test_any_text_is_a_path_that_reads_back_or_none(text: str) -> None:
    path = parse_path(text)
    if isinstance(path, Path):
        assert parse_path(str(path)) == path
        assert parse_path(path.short) == path
    else:
        assert path


def deep(depth: int) -> Any:
    value: Any = "x"
    for number in range(depth):
        value = [value] if number % 2 else {"x": value}
    return value


@pytest.mark.parametrize(
    "payload",
    [
        deep(100_000), [deep(100_000)], 10**5_000, "9" * 5_000, float("nan"), float("inf"), "\ud800", "0000-01-01",
        "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", 253_402_300_799_999, -1, 1e400, "x" * 2_000_000,
        [0] * 300_000,
    ],
    ids=lambda _: "",
)  # fmt: skip
def test_no_value_however_odd_makes_matching_raise(payload: Any) -> None:
    for (operator, as_type), examples in EXAMPLES.items():
        for options in ({"typeValidation": "strict"}, {"typeValidation": "loose"}):
            operands = [examples.operand]
            if RULES[operator].operand not in (OperandKind.NONE, OperandKind.PATTERN, OperandKind.PAIR):
                operands.append("{{y}}")
            if RULES[operator].operand is OperandKind.PAIR:
                operands.append(["{{y}}", "{{y}}"])
            for operand in operands:
                document = {
                    "field": "x",
                    "operator": str(operator),
                    "type": as_type,
                    "value": operand,
                    "options": options,
                }
                tree = parse(document)
                assert matches(tree, {"x": payload, "y": payload}) is explain(tree, {"x": payload, "y": payload}).holds
                matches(tree, payload)
    tree = ExpressionCondition(compile_expression("__trigger__.x = __trigger__.y"))
    assert matches(tree, {"x": payload, "y": payload}) in (True, False)


def test_an_expression_that_works_too_hard_is_not_a_match() -> None:
    tree = parse({"type": "expr", "expr": {"src": "$sum([1..10001].(__trigger__.x)) > 0"}})
    found = explain(tree, {"x": 1})
    assert not found.holds
    assert found.reason is not None
    assert "10000" in found.reason


@given(st.text("0123456789.eE+-", max_size=12))
def test_a_text_is_a_number_only_when_json_or_people_would_write_it_so(text: str) -> None:
    found = number_in(text)
    if found is not None:
        assert found == float(text)
    try:
        written = json.loads(text)
    except ValueError:
        return
    # An exponent of more than three digits is not read.
    assert found == written or abs(written) == float("inf") or (found is None and re.search(r"[eE][+-]?\d{4}", text))


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1)), st.integers(-14, 14))
def test_an_instant_is_the_same_in_every_zone(moment: datetime, hours: int) -> None:
    here = moment.replace(tzinfo=UTC)
    there = (here + timedelta(hours=hours)).replace(tzinfo=None).isoformat() + f"{hours:+03d}:00"
    tree = parse({"field": "x", "operator": "dateEquals", "value": there})
    assert matches(tree, {"x": here.isoformat()})
    assert matches(tree, {"x": moment.isoformat()})
