"""What each kind of step and gateway does, one example after another."""

import pytest

from engine.compile import compile_document
from engine.interpreter import Pace, advance, start
from engine.protocol import (
    Cancel,
    Complete,
    Fail,
    OpenHumanTask,
    RunAction,
    SpawnChildren,
    StartTimer,
    Withdraw,
    Yield,
    Yielded,
)
from tests.documents import (
    action,
    arrow,
    batch,
    child,
    confirm,
    document,
    expr,
    join,
    line,
    put,
    split,
    step,
)
from tests.engine.world import BEGAN, World, run_input


def test_an_empty_process_completes_with_its_context() -> None:
    world = World(line(), {"a": 1})
    assert world.output == {"a": 1}
    assert world.statuses() == {"end": "COMPLETED", "start": "COMPLETED"}


def test_the_output_of_the_definition_is_the_output_of_the_execution() -> None:
    definition = line(action("fetch"), output=expr("__steps__.fetch.n + 1"))
    assert World(definition).done("fetch#1", {"n": 41}).output == 42


def test_an_action_gets_its_parameters_with_the_values_filled_in() -> None:
    definition = line(action("call", parameters={"to": expr("__context__.name"), "list": [1, expr("1 + 1")]}))
    command = World(definition, {"name": "water"}).open["call#1"]
    assert isinstance(command, RunAction)
    assert command.parameters == {"to": "water", "list": [1, 2]}
    assert (command.action_key, command.retry.max_attempts, command.timeout) == ("test.echo", 3, 10.0)


def test_an_output_mapping_writes_into_the_context_after_success() -> None:
    mapping = [{"targetPath": "result.value", "value": expr("__steps__.call.n")}]
    world = World(line(action("call", outputMapping=mapping)))
    assert world.done("call#1", {"n": 7}).output == {"result": {"value": 7}}


def test_a_set_step_sets_and_appends() -> None:
    writes = [
        {"targetPath": "a.b", "value": 1},
        {"targetPath": "list", "value": "x", "mode": "append"},
        {"targetPath": "list", "value": "y", "mode": "append"},
    ]
    assert World(line(step("put", "SYS_SET", assignments=writes))).output == {"a": {"b": 1}, "list": ["x", "y"]}


def test_a_set_step_takes_all_values_from_before_its_writes() -> None:
    writes = [{"targetPath": "a", "value": 2}, {"targetPath": "b", "value": expr("__context__.a")}]
    assert World(line(step("put", "SYS_SET", assignments=writes)), {"a": 1}).output == {"a": 2, "b": 1}


def test_a_write_below_a_text_fails_the_run_and_changes_nothing() -> None:
    writes = [{"targetPath": "b", "value": 1}, {"targetPath": "a.b", "value": 1}]
    world = World(line(step("put", "SYS_SET", assignments=writes)), {"a": "text"})
    assert (world.failure.code, world.failure.step_id) == ("CONTEXT_WRITE_INVALID", "put")
    assert dict(world.state.context) == {"a": "text"}


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


def parallel(*branches: str) -> dict[str, object]:
    """Actions between a parallel split and join."""
    arrows = [arrow("start -> s"), arrow("j -> end")]
    for name in branches:
        arrows += [arrow(f"s -> {name}"), arrow(f"{name} -> j")]
    return document(split("s"), join("j"), *(action(name) for name in branches), *arrows)


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


def test_a_person_completes_a_step() -> None:
    definition = line(
        confirm("ok", assignment={"assignee": expr("__context__.owner")}, outcomes=["yes", "no"]),
        output=expr("__steps__.ok.outcome"),
    )
    world = World(definition, {"owner": "desk-7"})
    command = world.open["ok#1"]
    assert isinstance(command, OpenHumanTask)
    assert (command.assignee, command.outcomes) == ("desk-7", ("yes", "no"))
    assert world.statuses()["ok"] == "ACTION_REQUIRED"
    assert world.done("ok#1", "yes").output == "yes"


def test_a_human_step_with_a_timeout_fails_when_nobody_comes() -> None:
    world = World(line(confirm("ok", timeout="PT1H")))
    timer = world.open["ok#1/timeout"]
    assert isinstance(timer, StartTimer)
    assert timer.due == world.at + 3_600_000
    assert world.done("ok#1/timeout").failure.code == "STEP_TIMED_OUT"


def test_a_human_step_completed_in_time_disarms_its_timeout() -> None:
    world = World(line(confirm("ok", timeout=60), action("next")))
    world.done("ok#1")
    assert "ok#1/timeout" not in world.open
    assert world.outside() == ["next#1"]


def test_a_child_starts_with_the_mapped_input_and_gives_its_output() -> None:
    definition = line(
        child("sub", inputMapping=[{"targetPath": "order.id", "value": expr("__context__.id")}]),
        output=expr("__steps__.sub.total"),
    )
    world = World(definition, {"id": 5, "private": True})
    command = world.open["sub#1"]
    assert isinstance(command, SpawnChildren)
    assert command.version_ref == "child@1.0.0"
    assert [spec.context for spec in command.children] == [{"order": {"id": 5}}]
    assert world.done("sub#1", {"total": 9}).output == 9


def test_a_batch_keeps_its_window_full_and_its_output_in_item_order() -> None:
    mapping = [{"targetPath": "n", "value": expr("__each__ * 10 + __index__")}]
    definition = line(
        batch("all", "__context__.items", concurrency=2, inputMapping=mapping), output=expr("__steps__.all")
    )
    world = World(definition, {"items": [1, 2, 3]})
    assert world.outside() == ["all#1/item/0", "all#1/item/1"]
    world.done("all#1/item/1", "b")
    assert world.outside() == ["all#1/item/0", "all#1/item/2"]
    command = world.open["all#1/item/2"]
    assert isinstance(command, SpawnChildren)
    assert [(spec.context, spec.name) for spec in command.children] == [({"n": 32}, "all 3/3")]
    assert world.done("all#1/item/2", "c").done("all#1/item/0", "a").output == ["a", "b", "c"]


@pytest.mark.parametrize(("items", "count"), [("[]", 0), ("__context__.one", 1), ("__context__.many[n > 9]", 0)])
def test_a_batch_over_nothing_is_complete_and_over_one_value_runs_once(items: str, count: int) -> None:
    definition = line(batch("all", items), output=expr("$count(__steps__.all)"))
    world = World(definition, {"one": {"n": 1}, "many": [{"n": 1}]})
    for key in world.outside():
        world.done(key, {})
    assert world.output == count


def test_the_context_projection_sees_the_children_s_output() -> None:
    projection = [{"targetPath": "names", "value": expr("__child__.name")}]
    world = World(line(batch("all", "[1, 2]", contextProjection=projection)))
    world.done("all#1/item/1", {"name": "b"}).done("all#1/item/0", {"name": "a"})
    assert world.output == {"names": ["a", "b"]}


def test_a_child_that_fails_is_spawned_again_as_another_attempt() -> None:
    world = World(line(child("sub", retry={"maxAttempts": 2, "initialInterval": 5})))
    world.failed("sub#1")
    timer = world.open["sub#1/retry"]
    assert isinstance(timer, StartTimer)
    assert timer.due == world.at + 5_000
    world.done("sub#1/retry")
    command = world.open["sub#1"]
    assert isinstance(command, SpawnChildren)
    assert command.attempt == 2
    assert world.failed("sub#1", "AGAIN").failure.code == "AGAIN"


def test_one_child_of_a_batch_is_tried_again_alone() -> None:
    world = World(line(batch("all", "[1, 2]", retry={"maxAttempts": 2})))
    world.done("all#1/item/0", "a").failed("all#1/item/1")
    world.done("all#1/item/1/retry")
    command = world.open["all#1/item/1"]
    assert isinstance(command, SpawnChildren)
    assert [spec.key for spec in command.children] == ["all#1/item/1"]
    assert world.done("all#1/item/1", "b").output == {}


def test_a_failed_child_withdraws_its_siblings_and_waits_for_their_answer() -> None:
    world = World(line(batch("all", "[1, 2, 3, 4]", concurrency=3)))
    world.failed("all#1/item/1", "BAD")
    assert world.ended is None
    assert world.withdrawn == {"all#1/item/0", "all#1/item/2"}
    world.failed("all#1/item/0", "CANCELLED")
    assert world.ended is None
    assert world.failed("all#1/item/2", "CANCELLED").failure.code == "BAD"


def test_children_of_children_stop_at_the_greatest_depth() -> None:
    world = World(line(child("sub"), limits={"maxDepth": 2}), depth=2)
    assert world.failure.code == "MAX_DEPTH_EXCEEDED"


def test_a_failed_action_fails_the_run_and_withdraws_the_others() -> None:
    world = World(parallel("a", "b", "c")).failed("b#1", "NO_STOCK")
    assert world.withdrawn == {"a#1", "c#1"}
    world.done("a#1").failed("c#1", "CANCELLED")
    assert (world.failure.code, world.failure.message) == ("NO_STOCK", "b#1 failed")
    assert world.statuses() | {"start": "", "s": ""} == {
        "a": "CANCELLED",
        "b": "FAILED",
        "c": "CANCELLED",
        "s": "",
        "start": "",
    }


def test_what_was_only_asked_for_in_the_same_moment_is_not_started_at_all() -> None:
    definition = document(
        split("s"),
        action("fine"),
        action("broken", parameters=expr("__context__.missing")),
        join("j"),
        arrow("start -> s"),
        arrow("s -> fine"),
        arrow("s -> broken"),
        arrow("fine -> j"),
        arrow("broken -> j"),
        arrow("j -> end"),
    )
    world = World(definition)
    assert isinstance(world.ended, Fail)
    assert world.failure.code == "EXPRESSION_UNDEFINED"
    assert world.commands == [world.ended]


def test_an_error_after_an_action_s_success_fails_the_run_at_that_step() -> None:
    mapping = [{"targetPath": "x", "value": expr("__steps__.call.missing")}]
    world = World(line(action("call", outputMapping=mapping))).done("call#1", {})
    assert (world.failure.code, world.failure.step_id) == ("EXPRESSION_UNDEFINED", "call")
    assert world.statuses()["call"] == "FAILED"


def test_actions_beyond_the_parallelism_wait_their_turn() -> None:
    definition = parallel("a", "b", "c") | {"limits": {"parallelism": 2}}
    world = World(definition)
    assert world.outside() == ["a#1", "b#1"]
    world.done("b#1")
    assert world.outside() == ["a#1", "c#1"]
    assert world.done("a#1").done("c#1").output == {}


def test_a_waiting_action_whose_parameters_are_broken_fails_the_run() -> None:
    definition = document(
        split("s"),
        action("a"),
        action("b", parameters=expr("__context__.missing")),
        join("j"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> end"),
        limits={"parallelism": 1},
    )
    world = World(definition).done("a#1")
    assert (world.failure.code, world.failure.step_id) == ("EXPRESSION_UNDEFINED", "b")


def test_a_cancel_withdraws_everything_and_a_second_one_changes_nothing() -> None:
    world = World(parallel("a", "b"))
    world.cancelled("no longer needed").cancelled()
    assert sum(isinstance(command, Withdraw) for command in world.commands) == 1
    world.failed("a#1", "CANCELLED").failed("b#1", "CANCELLED")
    assert world.ended == Cancel("no longer needed")


def test_a_cancel_of_a_run_that_waits_for_a_person_ends_it_at_once() -> None:
    world = World(line(confirm("ok"))).cancelled()
    assert isinstance(world.ended, Cancel)
    assert world.statuses()["ok"] == "CANCELLED"


def test_the_deadline_of_the_execution_fails_it() -> None:
    world = World(line(confirm("ok"), limits={"executionTimeout": "PT10S"}))
    assert world.done("deadline").failure.code == "EXECUTION_TIMED_OUT"


def test_a_completion_of_a_step_that_is_no_longer_open_changes_nothing() -> None:
    world = World(line(confirm("ok", timeout=60), action("next")))
    answer = world.open["ok#1"]
    world.done("ok#1")
    before = world.state
    world.open["ok#1"] = answer
    world.done("ok#1")
    assert world.state.with_changes(at=before.at) == before


def test_a_step_in_a_loop_has_several_visits() -> None:
    definition = document(
        join("again", "EXCLUSIVE"),
        action("try", outputMapping=[{"targetPath": "ok", "value": expr("__steps__.try.ok")}]),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> try"),
        arrow("try -> x"),
        arrow("x -> end", condition="__context__.ok"),
        arrow("x -> again", isDefault=True),
    )
    world = World(definition).done("try#1", {"ok": False})
    assert world.outside() == ["try#2"]
    assert world.done("try#2", {"ok": True}).output == {"ok": True}


def test_a_simple_merge_activates_its_step_once_for_each_token() -> None:
    definition = document(
        split("s"),
        put("a", x=1),
        put("b", y=1),
        action("both"),
        join("j", "INCLUSIVE"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> both"),
        arrow("b -> both"),
        arrow("both -> end"),
    )
    definition["steps"] = [part for part in definition["steps"] if part["id"] != "j"]
    world = World(definition)
    assert world.outside() == ["both#1", "both#2"]
    world.done("both#2", 2)
    assert world.ended is None
    assert world.done("both#1", 1).output == {"x": 1, "y": 1}
