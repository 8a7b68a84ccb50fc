"""What a place can rely on: which steps have surely, possibly or never completed before it is evaluated."""

from typing import Any

import pytest

from engine.problems import Severity
from engine.validate import validate
from tests.documents import Document, expr, step
from tests.engine.definitions import chain, edge, graph, write

RULE = "REFERENCE_BEFORE_AVAILABLE"

ACTION, SET = "SYS_ACTION", "SYS_SET"
FORK, MEET = "GATEWAY_PARALLEL_SPLIT", "GATEWAY_PARALLEL_JOIN"
EITHER, MERGE = "GATEWAY_EXCLUSIVE_SPLIT", "GATEWAY_EXCLUSIVE_JOIN"
SOME, GATHER = "GATEWAY_INCLUSIVE_SPLIT", "GATEWAY_INCLUSIVE_JOIN"


def when(source: str, target: str) -> Document:
    return edge(source, target, condition="true")


def otherwise(source: str, target: str) -> Document:
    return edge(source, target, isDefault=True)


PARALLEL = graph(
    {"s": "START", "before": ACTION, "f": FORK, "a": ACTION, "b": ACTION, "m": MEET, "after": ACTION, "e": "END"},
    "s-before", "before-f", "f-a", "f-b", "a-m", "b-m", "m-after", "after-e",
)  # fmt: skip
EXCLUSIVE = graph(
    {"s": "START", "before": ACTION, "x": EITHER, "a": ACTION, "b": ACTION, "m": MERGE, "after": ACTION, "e": "END"},
    "s-before", "before-x", when("x", "a"), otherwise("x", "b"), "a-m", "b-m", "m-after", "after-e",
)  # fmt: skip
INCLUSIVE = graph(
    {"s": "START", "before": ACTION, "x": SOME, "a": ACTION, "b": ACTION, "m": GATHER, "after": ACTION, "e": "END"},
    "s-before", "before-x", when("x", "a"), otherwise("x", "b"), "a-m", "b-m", "m-after", "after-e",
)  # fmt: skip
LOOP = graph(
    {"s": "START", "m": MERGE, "a": ACTION, "b": ACTION, "x": EITHER, "after": ACTION, "e": "END"},
    "s-m", "m-a", "a-b", "b-x", when("x", "m"), otherwise("x", "after"), "after-e",
)  # fmt: skip
# A choice inside a parallel branch; the other branch runs beside it.
NESTED = graph(
    {
        "s": "START", "f": FORK, "x": EITHER, "a": ACTION, "c": ACTION, "n": MERGE, "b": ACTION, "m": MEET,
        "after": ACTION, "e": "END",
    },
    "s-f", "f-x", "f-b", when("x", "a"), otherwise("x", "c"), "a-n", "c-n", "n-m", "b-m", "m-after", "after-e",
)  # fmt: skip
# Three branches, of which two are joined first.
STAGED = graph(
    {
        "s": "START", "f": FORK, "a": ACTION, "b": ACTION, "c": ACTION, "m": MEET, "d": ACTION, "last": MEET,
        "after": ACTION, "e": "END",
    },
    "s-f", "f-a", "f-b", "f-c", "a-m", "b-m", "m-d", "d-last", "c-last", "last-after", "after-e",
)  # fmt: skip
# A branch of an inclusive split may go round its join.
ROUND = graph(
    {
        "s": "START", "x": SOME, "a": ACTION, "y": EITHER, "b": ACTION, "c": ACTION, "m": GATHER, "d": ACTION,
        "n": MERGE, "e": "END",
    },
    "s-x", when("x", "a"), otherwise("x", "y"), when("y", "b"), otherwise("y", "c"), "a-m", "b-m", "m-d", "d-n",
    "c-n", "n-e",
)  # fmt: skip
PARALLEL_LOOP = graph(
    {
        "s": "START", "m": MERGE, "f": FORK, "a": ACTION, "b": ACTION, "j": MEET, "x": EITHER, "after": ACTION,
        "e": "END",
    },
    "s-m", "m-f", "f-a", "f-b", "a-j", "b-j", "j-x", when("x", "m"), otherwise("x", "after"), "after-e",
)  # fmt: skip


def having(document: Document, step_id: str, **fields: Any) -> Document:
    """The document with more fields on one step."""
    steps = [{**each, **fields} if each["id"] == step_id else each for each in document["steps"]]
    return {**document, "steps": steps}


ANY = having(PARALLEL, "m", join={"policy": "ANY"})
FIRST = having(PARALLEL, "m", join={"policy": "ANY", "cancelRemaining": True})
SETTLED = having(PARALLEL, "m", join={"policy": "ALL_SETTLED"})
# A step that is left on error for another one, and both ways come together again.
CAUGHT = graph(
    {"s": "START", "a": ACTION, "mend": ACTION, "m": MERGE, "after": ACTION, "e": "END"},
    "s-a", "a-m", edge("a", "mend", on="ERROR"), "mend-m", "m-after", "after-e",
)  # fmt: skip
# The error of a branch ends at the same join as its success.
CAUGHT_IN_A_BRANCH = graph(
    {
        "s": "START", "f": FORK, "a": ACTION, "mend": ACTION, "n": MERGE, "b": ACTION, "m": MEET, "after": ACTION,
        "e": "END",
    },
    "s-f", "f-a", "f-b", "a-n", edge("a", "mend", on="TIMEOUT"), "mend-n", "n-m", "b-m", "m-after", "after-e",
)  # fmt: skip
RACE = graph(
    {
        "s": "START", "f": "GATEWAY_EVENT_SPLIT", "one": "HUMAN_CONFIRM", "two": "HUMAN_CONFIRM", "a": ACTION,
        "b": ACTION, "m": MERGE, "after": ACTION, "e": "END",
    },
    "s-f", "f-one", "f-two", "one-a", "two-b", "a-m", "b-m", "m-after", "after-e",
)  # fmt: skip
STOPPED = graph(
    {"s": "START", "x": EITHER, "a": ACTION, "t": "SYS_TERMINATE", "b": ACTION, "after": ACTION, "e": "END"},
    "s-x", when("x", "a"), otherwise("x", "b"), "a-t", "b-after", "after-e",
)  # fmt: skip
STOPPED = having(STOPPED, "t", outcome="FAILED")

SURE, PERHAPS, NEVER = None, Severity.WARNING, Severity.ERROR


@pytest.mark.parametrize(
    ("document", "earlier", "place", "expected"),
    [
        pytest.param(PARALLEL, "before", "a", SURE, id="before-a-fork"),
        pytest.param(PARALLEL, "a", "after", SURE, id="one-branch-after-a-parallel-join"),
        pytest.param(PARALLEL, "b", "after", SURE, id="the-other-branch-after-a-parallel-join"),
        pytest.param(PARALLEL, "a", "b", PERHAPS, id="beside"),
        pytest.param(PARALLEL, "after", "a", NEVER, id="later"),
        pytest.param(PARALLEL, "a", "before", NEVER, id="later-in-a-branch"),
        pytest.param(PARALLEL, "a", "a", NEVER, id="itself"),
        pytest.param(EXCLUSIVE, "before", "after", SURE, id="before-a-choice"),
        pytest.param(EXCLUSIVE, "a", "after", PERHAPS, id="one-branch-of-a-choice"),
        pytest.param(EXCLUSIVE, "a", "b", NEVER, id="the-other-branch-of-a-choice"),
        pytest.param(INCLUSIVE, "a", "after", PERHAPS, id="one-branch-of-an-inclusive-choice"),
        pytest.param(INCLUSIVE, "a", "b", PERHAPS, id="beside-in-an-inclusive-choice"),
        pytest.param(INCLUSIVE, "after", "b", NEVER, id="after-an-inclusive-join"),
        pytest.param(LOOP, "a", "after", SURE, id="in-a-loop-that-is-over"),
        pytest.param(LOOP, "a", "b", SURE, id="earlier-in-a-loop"),
        pytest.param(LOOP, "b", "a", PERHAPS, id="in-an-earlier-round"),
        pytest.param(LOOP, "a", "a", PERHAPS, id="itself-in-an-earlier-round"),
        pytest.param(LOOP, "after", "a", NEVER, id="after-a-loop"),
        pytest.param(NESTED, "a", "after", PERHAPS, id="a-choice-inside-a-branch"),
        pytest.param(NESTED, "b", "after", SURE, id="beside-a-choice"),
        pytest.param(NESTED, "a", "c", NEVER, id="the-other-side-of-a-choice-inside-a-branch"),
        pytest.param(NESTED, "a", "b", PERHAPS, id="a-choice-beside"),
        pytest.param(NESTED, "after", "a", NEVER, id="after-the-join-seen-from-a-choice"),
        pytest.param(STAGED, "a", "d", SURE, id="after-the-first-of-two-joins"),
        pytest.param(STAGED, "d", "c", PERHAPS, id="between-the-joins-seen-from-the-third-branch"),
        pytest.param(STAGED, "c", "d", PERHAPS, id="the-third-branch-seen-from-between-the-joins"),
        pytest.param(STAGED, "c", "after", SURE, id="the-third-branch-after-the-last-join"),
        pytest.param(STAGED, "d", "a", NEVER, id="between-the-joins-seen-from-a-joined-branch"),
        pytest.param(ROUND, "c", "d", PERHAPS, id="a-branch-that-goes-round-the-join"),
        pytest.param(PARALLEL_LOOP, "a", "b", PERHAPS, id="beside-in-a-loop"),
        pytest.param(PARALLEL_LOOP, "a", "after", SURE, id="a-branch-in-a-loop-that-is-over"),
        pytest.param(PARALLEL_LOOP, "b", "f", PERHAPS, id="a-branch-of-an-earlier-round"),
        pytest.param(ANY, "before", "after", SURE, id="before-the-split-of-a-join-with-a-policy"),
        pytest.param(ANY, "a", "after", PERHAPS, id="a-branch-that-may-not-have-arrived"),
        pytest.param(ANY, "after", "b", PERHAPS, id="after-the-join-seen-from-a-branch-that-is-late"),
        pytest.param(FIRST, "a", "after", PERHAPS, id="a-branch-that-may-have-been-withdrawn"),
        pytest.param(FIRST, "after", "b", NEVER, id="after-the-join-seen-from-a-branch-that-is-withdrawn-then"),
        pytest.param(SETTLED, "a", "after", PERHAPS, id="a-branch-that-may-have-failed"),
        pytest.param(SETTLED, "before", "after", SURE, id="before-the-split-of-a-join-that-settles"),
        pytest.param(SETTLED, "after", "b", NEVER, id="after-a-join-that-settles"),
        pytest.param(CAUGHT, "a", "mend", NEVER, id="the-step-that-failed"),
        pytest.param(CAUGHT, "a", "after", PERHAPS, id="a-step-that-may-have-failed"),
        pytest.param(CAUGHT, "mend", "after", PERHAPS, id="what-is-done-about-an-error"),
        pytest.param(CAUGHT_IN_A_BRANCH, "a", "after", PERHAPS, id="a-step-in-a-branch-that-may-have-failed"),
        pytest.param(CAUGHT_IN_A_BRANCH, "b", "after", SURE, id="beside-a-step-that-may-have-failed"),
        pytest.param(CAUGHT_IN_A_BRANCH, "b", "mend", PERHAPS, id="beside-what-is-done-about-an-error"),
        pytest.param(having(PARALLEL, "a", skipIf="true"), "a", "after", PERHAPS, id="skipped"),
        pytest.param(having(PARALLEL, "a", enabledWhile="true"), "a", "after", PERHAPS, id="not-enabled-any-more"),
        pytest.param(
            having(PARALLEL, "a", activationPolicy={"defaultStatus": "DISABLED"}), "a", "after", NEVER, id="disabled"
        ),
        pytest.param(RACE, "one", "a", SURE, id="the-winner"),
        pytest.param(RACE, "one", "b", NEVER, id="the-loser"),
        pytest.param(RACE, "one", "after", PERHAPS, id="perhaps-the-winner"),
        pytest.param(STOPPED, "b", "after", SURE, id="the-way-that-does-not-end-early"),
        pytest.param(STOPPED, "a", "after", NEVER, id="the-way-that-ends-early"),
    ],
)
def test_what_a_step_can_rely_on(document: Document, earlier: str, place: str, expected: Severity | None) -> None:
    """The place refers to the output of the earlier step: in parameters, or in a condition of a split."""
    changed = {
        **document,
        "steps": [
            {**each, "actionKey": "a", "parameters": expr(f"__steps__.{earlier}.x")}
            if each["id"] == place
            else {**each, "actionKey": "a"}
            for each in document["steps"]
            if each["type"] == ACTION
        ]
        + [each for each in document["steps"] if each["type"] != ACTION],
    }
    if place == "f":
        changed["stepTransitions"] = [
            {**each, "condition": f"__steps__.{earlier}.x"} if each["fromStepId"] == "f" else each
            for each in document["stepTransitions"]
        ]
    found = [each for each in validate(changed) if each.rule == RULE]
    assert {each.severity for each in found} == ({expected} if expected else set()), found


def test_a_possible_step_with_a_default_needs_no_warning_and_an_impossible_one_stays_an_error() -> None:
    def severities(earlier: str, place: str, value: Document) -> list[Severity]:
        steps = [
            {**each, "actionKey": "a"} | ({"parameters": value} if each["id"] == place else {})
            if each["type"] == ACTION
            else each
            for each in EXCLUSIVE["steps"]
        ]
        return [each.severity for each in validate({**EXCLUSIVE, "steps": steps}) if each.rule == RULE]

    assert severities("a", "after", expr("__steps__.a.x")) == [Severity.WARNING]
    assert severities("a", "after", expr("__steps__.a.x", default=1)) == []
    assert severities("a", "after", expr("__steps__.a.x", optional=True)) == []
    assert severities("a", "after", expr("__steps__.a.x ?? 1")) == []
    field = {"type": "field", "ref": {"source": "STEP", "stepId": "a", "path": "x"}}
    assert severities("a", "after", field) == [Severity.WARNING]
    assert severities("b", "a", expr("__steps__.b.x", default=1)) == [Severity.ERROR]


def test_a_step_may_use_its_own_output_once_it_has_one() -> None:
    own = expr("__steps__.a.x")
    document = chain(step("a", ACTION, actionKey="k", outputMapping=[write("x", own)]))
    assert [each for each in validate(document) if each.rule == RULE] == []
    document = chain(step("a", ACTION, actionKey="k", parameters=own))
    assert [each.severity for each in validate(document) if each.rule == RULE] == [Severity.ERROR]


def test_the_output_sees_what_has_surely_run_before_end() -> None:
    document = {**chain(step("a", ACTION, actionKey="k")), "output": expr("__steps__.a.x")}
    assert [each for each in validate(document) if each.rule == RULE] == []


def test_nothing_is_said_about_places_that_no_execution_reaches() -> None:
    document = chain(step("a", ACTION, actionKey="k"))
    document["steps"].append(step("island", ACTION, actionKey="k", parameters=expr("__steps__.a.x")))
    assert [each for each in validate(document) if each.rule == RULE] == []


def test_unknown_names_come_with_a_suggestion() -> None:
    document = chain(
        step("fetchCustomer", ACTION, actionKey="k"),
        step("b", SET, assignments=[write("x", expr("__steps__.fetchCustmer.x"))]),
    )
    (problem,) = [each for each in validate(document) if each.rule == "REFERENCE_EXISTS"]
    assert problem.message == 'there is no step "fetchCustmer"; did you mean "fetchCustomer"?'
    assert problem.path == "steps[2].assignments[0].value.expr"
    assert problem.step_ids == ("b",)


def test_a_problem_of_a_condition_names_its_transition() -> None:
    document = graph({"s": "START", "x": EITHER, "e": "END"}, "s-x", edge("x", "e", condition="__steps__.nope"))
    (problem,) = [each for each in validate(document) if each.rule == "REFERENCE_EXISTS"]
    assert (problem.path, problem.step_ids, problem.transition_ids) == (
        "stepTransitions[1].condition",
        ("x",),
        ("x-e",),
    )
