"""What gateways do with tokens, cycles and guardrails included."""

import pytest

from engine.compile import compile_document
from engine.events import Yielded
from engine.interpreter import Pace, advance, start
from engine.protocol import Complete, Fail, Yield
from tests.documents import action, arrow, confirm, document, expr, join, line, parallel, put, split
from tests.engine.world import BEGAN, World, run_input


@pytest.mark.parametrize(("amount", "taken"), [(150, "big"), (50, "small")])
def test_an_exclusive_split_takes_the_conditional_branch_when_it_holds(amount: int, taken: str) -> None:
    definition = document(
        split("x", "EXCLUSIVE"),
        put("big", size="big"),
        put("small", size="small"),
        join("j", "EXCLUSIVE"),
        arrow("start -> x"),
        arrow("x -> big", condition="__context__.amount > 100"),
        arrow("x -> small", isDefault=True),
        arrow("big -> j"),
        arrow("small -> j"),
        arrow("j -> end"),
    )
    world = World(definition, {"amount": amount})
    assert world.output["size"] == taken
    assert {"big", "small"} & set(world.statuses()) == {taken}


def test_a_condition_that_is_no_boolean_fails_the_run_with_its_path() -> None:
    definition = document(
        split("x", "EXCLUSIVE"),
        put("a", v=1),
        put("b", v=1),
        join("j", "EXCLUSIVE"),
        arrow("start -> x"),
        arrow("x -> a", condition="__context__.amount"),
        arrow("x -> b", isDefault=True),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> end"),
    )
    failure = World(definition, {"amount": 1}).failure
    assert (failure.code, failure.step_id) == ("EXPRESSION_RESULT", "x")
    assert failure.message.startswith("stepTransitions[1].condition: ")


def test_a_parallel_join_waits_for_every_branch() -> None:
    world = World(parallel("a", "b", "c"))
    assert world.outside() == ["a#1", "b#1", "c#1"]
    world.done("b#1").done("a#1")
    assert world.ended is None
    assert world.done("c#1").output == {}


def inclusive(**conditions: str) -> dict[str, object]:
    """Actions between an inclusive split and join, with a default branch `other`."""
    arrows = [arrow("start -> s"), arrow("j -> end"), arrow("s -> other", isDefault=True), arrow("other -> j")]
    for name, condition in conditions.items():
        arrows += [arrow(f"s -> {name}", condition=condition), arrow(f"{name} -> j")]
    names = [*conditions, "other"]
    return document(split("s", "INCLUSIVE"), join("j", "INCLUSIVE"), *(action(name) for name in names), *arrows)


@pytest.mark.parametrize(
    ("context", "taken"),
    [
        ({"a": True, "b": True}, ["a#1", "b#1"]),
        ({"a": False, "b": True}, ["b#1"]),
        ({"a": False, "b": False}, ["other#1"]),
    ],
)
def test_an_inclusive_split_takes_every_branch_that_holds_and_its_join_waits_for_just_those(
    context: dict[str, bool], taken: list[str]
) -> None:
    world = World(inclusive(a="__context__.a", b="__context__.b"), context)
    assert world.outside() == taken
    for key in taken[:-1]:
        assert world.done(key).ended is None
    assert world.done(taken[-1]).output == context


def test_an_inclusive_join_after_a_parallel_split_waits_for_a_token_that_can_still_come() -> None:
    definition = document(
        split("s"),
        action("quick"),
        action("slow"),
        split("x", "EXCLUSIVE"),
        join("j", "INCLUSIVE"),
        join("m", "EXCLUSIVE"),
        arrow("start -> s"),
        arrow("s -> quick"),
        arrow("s -> slow"),
        arrow("quick -> j"),
        arrow("slow -> x"),
        arrow("x -> j", condition="__steps__.slow.go"),
        arrow("x -> m", isDefault=True),
        arrow("j -> m"),
        arrow("m -> end"),
    )
    waits = World(definition).done("quick#1")
    assert "j" not in waits.statuses()
    assert waits.done("slow#1", {"go": False}).statuses()["j"] == "COMPLETED"
    both = World(definition).done("quick#1").done("slow#1", {"go": True})
    assert both.state.steps["j"].visits == 1
    assert both.output == {}


def test_an_inclusive_join_in_a_cycle_goes_on_in_each_round() -> None:
    definition = document(
        join("again", "EXCLUSIVE"),
        split("s", "INCLUSIVE"),
        action("a"),
        action("b"),
        join("j", "INCLUSIVE"),
        put("count", n=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> s"),
        arrow("s -> a", condition="true"),
        arrow("s -> b", condition="__context__.n = 0"),
        arrow("s -> x2", isDefault=True),
        join("x2", "EXCLUSIVE"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> count"),
        arrow("count -> x2"),
        arrow("x2 -> x"),
        arrow("x -> again", condition="__context__.n < 2"),
        arrow("x -> end", isDefault=True),
    )
    world = World(definition, {"n": 0})
    world.done("b#1")
    assert "j" not in world.statuses()
    world.done("a#1")
    assert world.outside() == ["a#2"]
    assert world.done("a#2").output == {"n": 2}
    assert world.state.steps["j"].visits == 2


def test_inclusive_joins_that_wait_only_for_each_other_go_on_in_plan_order() -> None:
    definition = document(
        split("s"),
        join("first", "INCLUSIVE"),
        join("second", "INCLUSIVE"),
        split("x", "EXCLUSIVE"),
        split("y", "EXCLUSIVE"),
        join("out", "INCLUSIVE"),
        arrow("start -> s"),
        arrow("s -> first"),
        arrow("s -> second"),
        arrow("first -> x"),
        arrow("second -> y"),
        arrow("x -> second", condition="false"),
        arrow("x -> out", isDefault=True),
        arrow("y -> first", condition="false"),
        arrow("y -> out", isDefault=True),
        arrow("out -> end"),
    )
    world = World(definition)
    assert world.output == {}
    assert {world.state.steps[name].visits for name in ("first", "second", "out")} == {1}


def test_tokens_that_can_never_move_are_a_deadlock_that_names_the_joins() -> None:
    definition = document(
        split("x", "EXCLUSIVE"),
        join("j"),
        arrow("start -> x"),
        arrow("x -> j", condition="true"),
        {**arrow("x -> j", isDefault=True), "id": "other"},
        arrow("j -> end"),
    )
    failure = World(definition).failure
    assert failure.code == "DEADLOCK"
    assert "j" in failure.message


def loop(limit: str = "__context__.n < 3", **fields: object) -> dict[str, object]:
    """Counts `n` up in a cycle."""
    return document(
        join("again", "EXCLUSIVE"),
        put("count", n=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition=limit),
        arrow("x -> end", isDefault=True),
        **fields,
    )


def test_a_cycle_runs_until_its_condition_fails() -> None:
    world = World(loop(), {"n": 0})
    assert world.output == {"n": 3}
    assert world.state.steps["count"].visits == 3


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"maxStepVisits": 10}, "MAX_NODE_VISITS_EXCEEDED"),
        ({"maxSteps": 20}, "MAX_STEPS_EXCEEDED"),
    ],
)
def test_an_endless_cycle_ends_at_a_guardrail(limits: dict[str, int], code: str) -> None:
    assert World(loop("true", limits=limits), {"n": 0}).failure.code == code


def test_a_long_pure_loop_yields_and_goes_on() -> None:
    limits = {"maxSteps": 1_000_000, "maxStepVisits": 1_000_000}
    world = World(loop("__context__.n < 2000", limits=limits), {"n": 0})
    yields = 0
    while "yield" in world.open:
        yields += 1
        world.done("yield")
    assert world.output == {"n": 2000}
    assert yields == 3


def test_a_caller_in_a_hurry_makes_it_stop_before_a_turn_and_a_replay_stops_there_too() -> None:
    world = World(loop("__context__.n < 50"), {"n": 0})
    asked = iter([False] * 20 + [True])
    hurried = start(world.plan, run_input({"n": 0}), Pace(late=lambda: next(asked)))
    assert hurried.commands == (Yield(22),)
    again = start(world.plan, run_input({"n": 0}), Pace(stop_at=22))
    assert again == hurried
    after = advance(world.plan, again.state, Yielded(BEGAN))
    assert isinstance(after.commands[-1], Complete)


def test_an_overdue_turn_fails_its_step_without_evaluating_it() -> None:
    definition = line(put("a", x=1), put("b", x=expr("__context__.missing")))
    failed = start(compile_document(definition), run_input(), Pace(overdue=frozenset({2})))
    assert isinstance(failed.commands[-1], Fail)
    assert (failed.commands[-1].failure.code, failed.commands[-1].failure.step_id) == ("EXPRESSION_TIMEOUT", "b")


def test_what_a_gateway_writes_is_there_behind_it() -> None:
    definition = document(
        {**split("s"), "outputMapping": [{"targetPath": "split", "value": 1}]},
        put("a", a=expr("__context__.split")),
        put("b", b=1),
        {**join("j"), "outputMapping": [{"targetPath": "met", "value": expr("__context__.a + 1")}]},
        *(arrow(text) for text in ("start -> s", "s -> a", "s -> b", "a -> j", "b -> j", "j -> end")),
    )
    assert World(definition).output == {"split": 1, "a": 1, "b": 1, "met": 2}


def test_a_join_whose_mapping_fails_leaves_its_tokens_where_they_are_until_it_is_retried() -> None:
    definition = document(
        split("s"),
        put("a", a=1),
        confirm("b"),
        {**join("j"), "outputMapping": [{"targetPath": "met", "value": expr("__context__.missing")}]},
        *(arrow(text) for text in ("start -> s", "s -> a", "s -> b", "a -> j", "b -> j", "j -> end")),
        onFailure="INCIDENT",
    )
    world = World(definition).done("b#1")
    assert world.keys() == ["j#1"]
    world.resolve("j#1", "RETRY")
    assert world.keys() == ["j#2"]
    world.resolve("j#2", "FAIL")
    assert world.failure.code == "EXPRESSION_UNDEFINED"
