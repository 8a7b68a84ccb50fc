"""The whole of validation: shape and size come first, everything is told at once, in a stable order, and quickly."""

import json
from pathlib import Path
from time import process_time
from types import MappingProxyType
from typing import Any

import pytest

from engine.catalogue import ActionEntry
from engine.compile import compile_document
from engine.definition import read_definition
from engine.problems import Problem, Severity
from engine.rules.table import DEFINITION_SHAPE, RULES, SIZE_LIMIT
from engine.steps import StepType
from engine.validate import has_errors, validate
from tests.documents import Document, expr, step
from tests.engine.definitions import chain, edge, everything, find, graph, world, write

LANGUAGE = Path(__file__).parents[2] / "docs" / "language.md"

# The names and codes of the older builder that this language took over; programs branch on them.
TAKEN_OVER = {
    "GRAPH_EXACTLY_ONE_START": "GRAPH_INVALID",
    "GRAPH_EXACTLY_ONE_END": "GRAPH_INVALID",
    "START_STEP_NO_INCOMING": "GRAPH_INVALID",
    "END_STEP_SINGLE_INCOMING": "GRAPH_INVALID",
    "END_STEP_NO_OUTGOING": "GRAPH_INVALID",
    "TRANSITIONS_UNIQUE": "GRAPH_INVALID",
    "NO_SELF_LOOPS": "GRAPH_INVALID",
    "NO_ISOLATED_STEPS": "GRAPH_INVALID",
    "ONLY_SPLIT_GATEWAY_CAN_FAN_OUT": "GRAPH_INVALID",
    "JOIN_GATEWAY_MANY_IN_SINGLE_OUT": "GRAPH_INVALID",
    "CONDITIONAL_SPLIT_SINGLE_DEFAULT": "GRAPH_INVALID",
    "EXCLUSIVE_SPLIT_TWO_OUTGOING": "GRAPH_INVALID",
    "ONLY_EXCLUSIVE_INCLUSIVE_STEP_HAVE_CONDITION": "GRAPH_INVALID",
    "MISSING_BATCH_ITERATOR": "GRAPH_INVALID",
    "STEP_IDS_UNIQUE": "ID_INVALID",
    "TRANSITION_IDS_UNIQUE": "ID_INVALID",
    "STEP_GROUP_IDS_UNIQUE": "ID_INVALID",
    "NO_GROUP_FOR_SPECIAL_NODES": "GROUPING_INVALID",
    "GROUP_STEP_IDS_EXISTS": "GROUPING_INVALID",
    "STEP_BELONGS_TO_ONLY_ONE_GROUP": "GROUPING_INVALID",
    "STEP_GROUP_CANNOT_BE_EMPTY": "GROUPING_INVALID",
    "LEGACY_SERVICE_REQUEST_REQUIRES_STEP_GROUPS": "GROUPING_INVALID",
    "LEGACY_SERVICE_REQUEST_TYPE_GROUP_TASK_UNIQUE": "LEGACY_CONFIG_INVALID",
    "LEGACY_SERVICE_REQUEST_TASK_GROUP_EXISTS_IN_TEMPLATE": "LEGACY_CONFIG_INVALID",
    "LEGACY_SERVICE_REQUEST_TASK_EXISTS_IN_TEMPLATE": "LEGACY_CONFIG_INVALID",
    "LEGACY_SERVICE_REQUEST_TASK_ONLY_ON_HUMAN_STEP": "LEGACY_CONFIG_INVALID",
}
ADDED = {
    "START_STEP_HAS_OUTGOING": "GRAPH_INVALID",
    "TRANSITION_ENDS_EXIST": "GRAPH_INVALID",
    "STEP_REACHABLE_FROM_START": "GRAPH_INVALID",
    "STEP_CAN_REACH_END": "GRAPH_INVALID",
    "EXPRESSION_COMPILES": "EXPRESSION_INVALID",
    "REFERENCE_EXISTS": "EXPRESSION_INVALID",
    "REFERENCE_BEFORE_AVAILABLE": "EXPRESSION_INVALID",
    "ROUTE_KEYS_UNIQUE": "GRAPH_INVALID",
    "EVENT_SPLIT_TARGETS": "GRAPH_INVALID",
    "JOIN_POLICY_IN_RANGE": "GRAPH_INVALID",
    "JOIN_NEEDS_REGION": "GRAPH_INVALID",
    "ERROR_TRANSITION_FROM_WORK_STEP": "GRAPH_INVALID",
    "DATASOURCE_EXISTS": "REGISTRY_INVALID",
    "CONTEXT_WRITE_RACE": "DATA_RACE",
    "HUMAN_STEP_WITHOUT_DUE": "ADVICE",
    "LOOP_WITHOUT_LIMIT": "ADVICE",
    "UNSAFE_ACTION_NOT_COMPENSABLE": "ADVICE",
    "ACTION_EXISTS": "REGISTRY_INVALID",
    "ACTION_PARAMETERS_VALID": "REGISTRY_INVALID",
    "ACTION_TIMEOUT_IN_RANGE": "REGISTRY_INVALID",
    "CHILD_EXISTS": "CHILD_INVALID",
    "CHILD_PUBLISHED": "CHILD_INVALID",
    "CHILD_CYCLE_BOUNDED": "CHILD_INVALID",
}


def places(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    return [(each.path, each.message) for each in problems]


def test_all_26_rules_are_there_with_their_codes_and_so_are_the_added_ones() -> None:
    table = {rule.name: rule.code for rule in RULES} | dict([SIZE_LIMIT, DEFINITION_SHAPE])
    assert len(TAKEN_OVER) == 26
    assert table["SIZE_LIMIT"] == "SIZE_INVALID"
    assert {name: table.get(name) for name in TAKEN_OVER | ADDED} == TAKEN_OVER | ADDED


def test_the_language_reference_names_every_rule_with_its_code() -> None:
    lines = LANGUAGE.read_text(encoding="utf-8").splitlines()
    for name, code in [SIZE_LIMIT, DEFINITION_SHAPE, *((rule.name, rule.code) for rule in RULES)]:
        assert any(f"`{name}`" in line and f"`{code}`" in line for line in lines), name


def test_the_examples_of_the_language_reference_are_valid() -> None:
    """A fenced `json` block with steps is a whole definition."""
    blocks = LANGUAGE.read_text(encoding="utf-8").split("```json\n")[1:]
    documents = [json.loads(block.split("```")[0]) for block in blocks]
    whole = [document for document in documents if "steps" in document]
    assert len(whole) >= 2
    for document in whole:
        assert [each for each in validate(document) if each.severity is not Severity.NOT_CHECKED] == []
        compile_document(document)


def test_the_language_reference_shows_every_kind_of_step() -> None:
    """A fenced `json` block with a type is one step."""
    blocks = LANGUAGE.read_text(encoding="utf-8").split("```json\n")[1:]
    shown = [found for block in blocks if "type" in (found := json.loads(block.split("```")[0]))]
    assert {found["type"] for found in shown} == set(StepType)
    read_definition({"steps": shown, "stepTransitions": []})


def test_what_is_accepted_compiles() -> None:
    assert validate(everything(), world()) == ()
    assert len(compile_document(everything()).nodes) == 13


def test_mistakes_in_shape_are_told_in_plain_words_and_nothing_else_is() -> None:
    document = {
        "steps": [
            step("s", "START"),
            step("x", "SYS_ACTON"),
            {"id": "y", "name": "y"},
            step("h", "human.confirm", retry={"backoff": "often", "initialInterval": "soon"}, foo=1),
            7,
            step("c", "SYS_SUB_WORKFLOW", wait="no", skipIf=5, inputMapping=[{"targetPath": "", "value": 1}]),
            step("a b", "END"),
        ],
        "stepTransitions": [edge("s", "h", condition=5, isDefault="yes"), {"id": "t"}],
        "limits": {"maxSteps": 0},
        "extra": 1,
    }
    problems = validate(document)
    assert {(each.rule, each.code) for each in problems} == {DEFINITION_SHAPE}
    found = dict(places(problems))
    assert found["steps[1].type"].startswith('"SYS_ACTON" is no type of step; did you mean "SYS_ACTION"?')
    assert "GATEWAY_INCLUSIVE_JOIN" in found["steps[1].type"]
    assert found["steps[2].type"].startswith("a step needs a `type`")
    duration = "a duration is ISO 8601 text such as PT30S, or a number of seconds"
    assert found == {
        **{path: found[path] for path in ("steps[1].type", "steps[2].type", "steps[6].id")},
        "steps[3].foo": "unknown field",
        "steps[3].retry.backoff": "must be 'exponential', 'linear' or 'fixed'",
        "steps[3].retry.initialInterval": duration,
        "steps[4]": "an object is needed here",
        "steps[5].wait": "true or false is needed here",
        "steps[5].skipIf": "a condition is JSONata text, or an object with it in `src`",
        "steps[5].inputMapping[0].targetPath": "must have at least 1 character",
        "stepTransitions[0].condition": "a condition is JSONata text, or an object with it in `src`",
        "stepTransitions[0].isDefault": "true or false is needed here",
        "stepTransitions[1].fromStepId": "this field is required",
        "stepTransitions[1].toStepId": "this field is required",
        "limits.maxSteps": "must be greater than or equal to 1",
        "extra": "unknown field",
    }


def test_all_problems_are_told_at_once_in_the_order_of_the_rules() -> None:
    document = everything()
    find(document, "fetch")["actionKey"] = "nope"
    find(document, "mark")["assignments"] = [write("a..b", expr("__steps__.nope"))]
    document["stepTransitions"].append(edge("mark", "mark"))
    problems = validate(document, world())
    names = [each.rule for each in problems]
    assert {"NO_SELF_LOOPS", "TARGET_PATH_VALID", "REFERENCE_EXISTS", "ACTION_EXISTS"} <= set(names)
    order = [rule.name for rule in RULES]
    assert [order.index(name) for name in names] == sorted(order.index(name) for name in names)
    assert validate(document, world()) == problems


def test_without_a_catalogue_what_needs_one_says_so_once() -> None:
    document = everything()
    find(document, "fetch")["outputMapping"] = []
    document["steps"].append(step("more", "SYS_ACTION", actionKey="other"))
    open_questions = [each.rule for each in validate(document) if each.severity is Severity.NOT_CHECKED]
    assert open_questions == [
        "LEGACY_SERVICE_REQUEST_TASK_GROUP_EXISTS_IN_TEMPLATE",
        "LEGACY_SERVICE_REQUEST_TASK_EXISTS_IN_TEMPLATE",
        "ACTION_EXISTS",
        "ACTION_PARAMETERS_VALID",
        "CHILD_EXISTS",
        "CHILD_PUBLISHED",
        "CHILD_CYCLE_BOUNDED",
        "UNSAFE_ACTION_NOT_COMPENSABLE",
    ]
    assert validate(chain()) == ()


def test_only_errors_stand_in_the_way_of_publishing() -> None:
    problems = [Problem("R", "C", "m", "p", severity) for severity in (Severity.WARNING, Severity.NOT_CHECKED)]
    assert not has_errors(problems)
    assert has_errors([*problems, Problem("R", "C", "m", "p")])


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"steps": [step("s", "START")] * 5_001, "stepTransitions": []}, "at most 5,000 steps"),
        ({"steps": [], "stepTransitions": [0] * 20_001}, "at most 20,000 stepTransitions"),
        ({**chain(), "output": "x" * 1024 * 1024}, "at most 1,048,576 bytes"),
        ({**chain(), "output": [0] * 5_000_000}, "at most 1,048,576 bytes"),
        ({**chain(), "output": "é" * 600_000}, "at most 1,048,576 bytes"),
        ({**chain(), "output": nested(100)}, "at most 100 levels"),
        ({**chain(), "output": nested(50_000)}, "at most 100 levels"),
    ],
)
def test_a_definition_that_is_too_much_is_refused_before_anything_is_done(document: Document, message: str) -> None:
    began = process_time()
    (problem,) = validate(document)
    assert process_time() - began < 1
    assert (problem.rule, problem.code) == SIZE_LIMIT
    assert message in problem.message


def test_a_definition_of_just_the_right_size_is_accepted() -> None:
    empty = len(json.dumps({**chain(), "output": ""}, separators=(",", ":")))
    assert validate({**chain(), "output": "x" * (1024 * 1024 - empty)}) == ()
    assert validate({**chain(), "output": nested(98)}) == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "not JSON"), ("\ud800", "not JSON"), ({1, 2}, "not JSON"), ("a\0b", "null character")],
)
def test_what_json_or_the_database_cannot_hold_is_a_mistake_in_shape(value: Any, message: str) -> None:
    (problem,) = validate({**chain(), "output": value})
    assert (problem.rule, problem.code) == DEFINITION_SHAPE
    assert message in problem.message


def test_text_that_only_looks_like_a_null_character_is_accepted() -> None:
    assert validate({**chain(), "output": "\\u0000"}) == ()


def test_any_mapping_may_be_validated() -> None:
    assert validate(MappingProxyType(chain())) == ()


def test_of_thousands_of_mistakes_in_shape_the_first_are_told() -> None:
    document = {"steps": [step(f"s{at}", "END", foo=1) for at in range(3_000)], "stepTransitions": []}
    problems = validate(document)
    assert problems[0].path == "steps[0].foo"
    assert problems[-1].message == "3,000 mistakes in all; only the first are listed"
    assert len(problems) <= 1_001


def tangled() -> Document:
    """Parallel splits inside each other, 1,600 deep, each branch referring to another one's."""
    steps = [step("s", "START"), step("e", "END")]
    transitions = [edge("s", "f0")]
    for at in range(1_600):
        source = {"type": "field", "ref": {"source": "STEP", "stepId": f"a{at * 7 % 1_600}", "path": "x"}}
        steps.append(step(f"f{at}", "GATEWAY_PARALLEL_SPLIT"))
        steps.append(step(f"a{at}", "SYS_ACTION", actionKey="k", parameters=source))
        steps.append(step(f"j{at}", "GATEWAY_PARALLEL_JOIN"))
        inner = f"f{at + 1}" if at < 1_599 else f"j{at}"
        outer = f"j{at - 1}" if at else "e"
        transitions += [edge(f"f{at}", f"a{at}"), edge(f"a{at}", f"j{at}"), edge(f"f{at}", inner)]
        transitions.append(edge(f"j{at}", outer))
    return {"steps": steps, "stepTransitions": transitions}


def ladder() -> Document:
    """Every step leads to the next and back to the one before: nothing but cycles."""
    kinds = {"s": "START"} | {f"g{at}": "GATEWAY_EXCLUSIVE_SPLIT" for at in range(2_400)} | {"e": "END"}
    forth = [f"g{at}-g{at + 1}" for at in range(2_399)]
    back = [f"g{at + 1}-g{at}" for at in range(2_399)]
    document = graph(kinds, "s-g0", *forth, *back, "g2399-e")
    return {**document, "output": expr("__steps__.nope")}


def unknown_names() -> Document:
    """Thousands of names that are nearly right, each worth a search for a better one."""
    return chain(
        *(
            step(f"step_with_a_long_name_{at}", "SYS_ACTION", actionKey="k", parameters=reference)
            for at in range(2_500)
            for reference in [
                {"type": "field", "ref": {"source": "STEP", "stepId": f"step_with_a_long_nome_{at}", "path": "x"}}
            ]
        )
    )


def tangled_regions() -> Document:
    """Joins with a policy inside each other, 1,600 deep, whose branches all write the same place."""
    document = tangled()
    for each in document["steps"]:
        if each["type"] == "GATEWAY_PARALLEL_JOIN":
            each["join"] = {"policy": "ANY"}
        if each["type"] == "SYS_ACTION":
            each["outputMapping"] = [write("x", 1)]
    return document


def crowded() -> Document:
    """Thousands of branches that write the same place, after a loop that all of them share."""
    kinds = {"s": "START", "again": "GATEWAY_EXCLUSIVE_JOIN", "f": "GATEWAY_PARALLEL_SPLIT"}
    kinds |= {f"a{at}": "SYS_SET" for at in range(3_000)}
    kinds |= {"j": "GATEWAY_PARALLEL_JOIN", "x": "GATEWAY_EXCLUSIVE_SPLIT", "e": "END"}
    arrows = [f"f-a{at}" for at in range(3_000)] + [f"a{at}-j" for at in range(3_000)]
    document = graph(kinds, "s-again", "again-f", *arrows, "j-x", "x-again", "x-e")
    for each in document["steps"]:
        if each["type"] == "SYS_SET":
            each["assignments"] = [write("x", expr("__steps__.nope"))]
    return document


@pytest.mark.parametrize("build", [tangled, ladder, unknown_names, tangled_regions, crowded])
def test_a_hostile_graph_of_thousands_of_steps_takes_about_a_second(build: Any) -> None:
    """Anything quadratic would take a minute; the bound leaves room for a slow machine. Others' work is not counted."""
    document = build()
    began = process_time()
    found = {each.code for each in validate(document)}
    assert process_time() - began < 5
    assert "EXPRESSION_INVALID" in found


def test_only_a_long_action_may_take_more_than_five_minutes() -> None:
    document = everything()
    find(document, "fetch")["timeout"] = "PT1H"
    schema = world().actions["http.request"].parameters_schema
    long = world(actions={"http.request": ActionEntry("http.request", schema, long=True)})
    assert "ACTION_TIMEOUT_IN_RANGE" not in {each.rule for each in validate(document, long)}
    (refused,) = [each for each in validate(document, world()) if each.rule == "ACTION_TIMEOUT_IN_RANGE"]
    assert refused.path == "steps[3].timeout"
    (open_question,) = [each for each in validate(document) if each.rule == "ACTION_TIMEOUT_IN_RANGE"]
    assert open_question.severity is Severity.NOT_CHECKED
