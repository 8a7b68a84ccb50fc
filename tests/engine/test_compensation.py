"""Undoing what was done, latest first."""

from typing import Any

import pytest

from engine.compensation import to_undo
from engine.events import ActionDone, CancelRequested
from engine.protocol import Cancel, Fail, RunAction, TellChildren
from tests.documents import (
    Document,
    action,
    arrow,
    batch,
    child,
    confirm,
    document,
    expr,
    join,
    line,
    policy_join,
    put,
    split,
    step,
    wait_signal,
)
from tests.engine.world import World


def undoing(**fields: Any) -> Document:
    """A compensate block that is told the result."""
    return {"compensate": {"actionKey": "test.undo", "parameters": expr("__result__", optional=True), **fields}}


def undone(world: World) -> list[str]:
    """Answers each compensator well, and tells in which order they came."""
    order = []
    while world.ended is None:
        (key,) = world.outside()
        order.append(key.removesuffix("/compensate"))
        world.done(key)
    return order


def test_completed_steps_are_undone_in_reverse_order_with_what_they_gave() -> None:
    steps = (action("a", **undoing()), action("plain"), action("b", **undoing()), action("c", **undoing()))
    world = World(line(*steps)).done("a#1", 1).done("plain#1").done("b#1", 2).failed("c#1")
    command = world.command("b#1/compensate")
    assert isinstance(command, RunAction)
    assert (command.action_key, command.parameters, command.retry.max_attempts) == ("test.undo", 2, 3)
    assert undone(world) == ["b#1", "a#1"]
    assert world.statuses()["a"] == world.statuses()["b"] == "COMPENSATED"
    assert world.statuses()["c"] == "FAILED"
    assert isinstance(world.ended, Fail)
    prefix = world.state.run.execution_id
    assert world.ended.compensated == (f"{prefix}/b#1/compensate", f"{prefix}/a#1/compensate")


def test_the_order_is_that_of_completion_over_parallel_branches() -> None:
    definition = document(
        split("s"),
        action("a", **undoing()),
        action("b", **undoing()),
        action("c", **undoing()),
        join("j"),
        action("last"),
        arrow("start -> s"),
        *(arrow(f"s -> {name}") for name in "abc"),
        *(arrow(f"{name} -> j") for name in "abc"),
        arrow("j -> last"),
        arrow("last -> end"),
    )
    world = World(definition).done("b#1").done("c#1").done("a#1").failed("last#1")
    assert undone(world) == ["a#1", "c#1", "b#1"]


def test_every_visit_is_undone_with_its_own_parameters() -> None:
    counted = [{"targetPath": "n", "value": expr("(__context__.n ?? 0) + 1")}]
    undo = {"compensate": {"actionKey": "test.undo", "parameters": expr("__context__.n ?? 0")}}
    definition = document(
        join("again", "EXCLUSIVE"),
        action("a", outputMapping=counted, **undo),
        split("more", "EXCLUSIVE"),
        action("last"),
        arrow("start -> again"),
        arrow("again -> a"),
        arrow("a -> more"),
        arrow("more -> again", condition="__context__.n < 3"),
        arrow("more -> last", isDefault=True),
        arrow("last -> end"),
    )
    world = World(definition).done("a#1").done("a#2").done("a#3").failed("last#1")
    assert world.command("a#3/compensate").parameters == 2
    assert undone(world) == ["a#3", "a#2", "a#1"]


def test_items_are_undone_each_for_itself() -> None:
    over = {"iterable": {"type": "EXPRESSION", "expr": {"src": "['x', 'y']"}}}
    undo = {"compensate": {"actionKey": "test.undo", "parameters": [expr("__each__"), expr("__result__")]}}
    world = World(line(action("a", forEach=over, **undo), action("last")))
    world.done("a#1/item/1", 2).done("a#1/item/0", 1).failed("last#1")
    assert world.command("a#1/item/0/compensate").parameters == ["x", 1]
    assert undone(world) == ["a#1/item/0", "a#1/item/1"]


def test_what_withdrawn_siblings_of_a_failing_item_had_done_is_undone_and_the_failed_item_is_not() -> None:
    over = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2, 3]"}}}
    world = World(line(action("a", forEach=over, **undoing()))).done("a#1/item/0").failed("a#1/item/1")
    world.done("a#1/item/2")
    assert undone(world) == ["a#1/item/2", "a#1/item/0"]


def test_people_and_signals_are_undone_too() -> None:
    steps = (confirm("ok", **undoing()), wait_signal("paid", **undoing()), action("last"))
    world = World(line(*steps)).done("ok#1").signal("paid", 3).failed("last#1")
    assert world.command("paid#1/compensate").parameters == 3
    assert undone(world) == ["paid#1", "ok#1"]


def done_by_a_child() -> list[dict[str, Any]]:
    """What a child of two steps tells its parent."""
    kid = (
        World(line(action("x", **undoing()), action("y", **undoing())), execution_id="kid")
        .done("x#1", 1)
        .done("y#1", 2)
    )
    return to_undo(kid.state)


def test_what_a_child_has_done_is_undone_before_the_childs_own_step() -> None:
    steps = (action("first", **undoing()), child("kid"), action("last"))
    world = World(line(*steps)).done("first#1").done("kid#1", compensations=done_by_a_child()).failed("last#1")
    first = world.command(world.outside()[0])
    assert (first.action_key, first.parameters, first.idempotency_key) == ("test.undo", 2, "kid/y#1/compensate")
    world.done(first.key)
    assert world.command(world.outside()[0]).parameters == 1
    world.done(world.outside()[0])
    assert undone(world) == ["first#1"]


def test_what_the_children_of_a_batch_have_done_is_undone_latest_first() -> None:
    world = World(line(batch("kids", "[1, 2]", **undoing()), action("last")))
    world.done("kids#1/item/1", compensations=done_by_a_child()).done("kids#1/item/0", compensations=done_by_a_child())
    world.failed("last#1")
    order = []
    while world.ended is None:
        order.append(world.outside()[0].split("/compensate")[0])
        world.done(world.outside()[0])
    assert order == ["kids#1/item/0"] * 3 + ["kids#1/item/1"] * 3


def test_a_child_that_nobody_waits_for_is_left_alone() -> None:
    world = World(line(child("kid", wait=False), confirm("ok"))).done("kid#1", {"executionId": "x"}).cancelled()
    assert isinstance(world.ended, Cancel)


def test_running_actions_are_awaited_first_and_one_that_still_succeeds_is_undone() -> None:
    definition = document(
        split("s"),
        action("a", **undoing()),
        action("b", **undoing()),
        action("c", **undoing()),
        join("j"),
        arrow("start -> s"),
        *(arrow(f"s -> {name}") for name in "abc"),
        *(arrow(f"{name} -> j") for name in "abc"),
        arrow("j -> end"),
    )
    world = World(definition).done("a#1").failed("b#1")
    assert world.outside() == ["c#1"]
    world.done("c#1", 3)
    assert world.command("c#1/compensate").parameters == 3
    assert undone(world) == ["c#1", "a#1"]


def test_a_rival_that_still_succeeds_is_undone_when_the_run_fails_later() -> None:
    definition = document(
        split("s"),
        action("a", **undoing()),
        action("b", **undoing()),
        policy_join("j", "ANY", cancel=True),
        confirm("ok"),
        action("last"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> ok"),
        arrow("ok -> last"),
        arrow("last -> end"),
    )
    world = World(definition).done("a#1").done("b#1").done("ok#1").failed("last#1")
    assert undone(world) == ["b#1", "a#1"]


def test_a_completed_run_undoes_nothing_and_tells_what_would() -> None:
    world = World(line(action("a", **undoing()))).done("a#1", 1)
    assert isinstance(to_undo(world.state)[0], dict)
    assert world.output == {}


def parked() -> World:
    """A run that fails after three steps, the last of which cannot be undone."""
    steps = (action("a", **undoing()), action("b", **undoing()), action("last"))
    return World(line(*steps)).done("a#1", 1).done("b#1", 2).failed("last#1").failed("b#1/compensate", "STUCK")


def test_a_compensator_that_fails_is_parked_and_the_others_go_on() -> None:
    world = parked()
    assert world.statuses()["b"] == "INCIDENT"
    assert world.keys() == ["a#1/compensate", "b#1/compensate"]
    world.done("a#1/compensate")
    assert world.ended is None


def test_a_parked_compensator_is_tried_again_with_other_parameters() -> None:
    world = parked().done("a#1/compensate").resolve("b#1/compensate", "RETRY", parameters=9, edited=True)
    assert world.command("b#1/compensate").parameters == 9
    world.done("b#1/compensate")
    assert world.failure.code == "BROKEN"
    assert world.statuses()["b"] == "COMPENSATED"


def test_a_parked_compensator_that_is_tried_again_waits_for_its_turn() -> None:
    world = parked().resolve("b#1/compensate", "RETRY")
    assert world.keys() == ["a#1/compensate"]
    assert undone(world) == ["a#1", "b#1"]


def test_what_an_operator_has_undone_by_hand_counts_as_undone() -> None:
    world = parked().done("a#1/compensate").resolve("b#1/compensate", "COMPLETE")
    assert isinstance(world.ended, Fail)
    assert len(world.ended.compensated) == 2


def test_what_an_operator_gives_up_stays_done() -> None:
    world = parked().done("a#1/compensate").resolve("b#1/compensate", "FAIL")
    assert isinstance(world.ended, Fail)
    assert len(world.ended.compensated) == 1


def test_a_compensator_that_suspends_itself_has_failed() -> None:
    world = (
        World(line(action("a", **undoing()), action("last"))).done("a#1").failed("last#1").suspended("a#1/compensate")
    )
    assert world.state.work["a#1/compensate"].failure is not None
    assert world.resolve("a#1/compensate", "FAIL").failure.code == "BROKEN"


def test_a_compensator_answers_once() -> None:
    steps = (action("a", **undoing()), action("b", **undoing()), action("last"))
    world = World(line(*steps)).done("a#1").done("b#1").failed("last#1").done("b#1/compensate")
    world.changes_nothing(ActionDone("b#1/compensate", world.tick(), None))


def test_a_cancel_compensates() -> None:
    world = World(line(action("a", **undoing()), confirm("ok"))).done("a#1").cancelled("enough")
    assert undone(world) == ["a#1"]
    assert world.ended == Cancel("enough")


def test_a_cancel_may_leave_everything_done() -> None:
    world = World(line(action("a", **undoing()), child("kid"))).done("a#1").cancelled(compensate=False)
    assert world.said(TellChildren) == [TellChildren(("kid#1",), "LEAVE_DONE")]
    world.settle()
    assert world.ended == Cancel(None)
    assert world.statuses()["a"] == "COMPLETED"


def test_a_second_cancel_changes_nothing() -> None:
    world = World(line(action("a", **undoing()), confirm("ok"))).done("a#1").cancelled("one")
    world.changes_nothing(CancelRequested(world.tick(), "two", False))
    assert undone(world) == ["a#1"]
    world.changes_nothing(CancelRequested(world.tick(), "three", True))


def test_the_run_goes_on_undoing_after_it_was_carried_over() -> None:
    world = parked().done("a#1/compensate").carried_over()
    assert world.resolve("b#1/compensate", "RETRY").done("b#1/compensate").failure.code == "BROKEN"


def test_a_compensator_whose_parameters_cannot_be_worked_out_fails_its_step() -> None:
    undo = {"compensate": {"actionKey": "test.undo", "parameters": expr("__result__.missing")}}
    world = World(line(action("a", **undo))).done("a#1", {})
    assert world.failure.step_id == "a"


def test_a_step_that_was_skipped_or_disabled_is_not_undone() -> None:
    steps = (
        action("a", skipIf="true", **undoing()),
        action("b", activationPolicy={"defaultStatus": "DISABLED"}, **undoing()),
        action("last"),
    )
    assert World(line(*steps)).failed("last#1").failure.code == "BROKEN"


def test_a_step_whose_failure_was_caught_is_not_undone() -> None:
    definition = document(
        action("a", **undoing()),
        put("mend", mended=True),
        action("last"),
        join("m", "EXCLUSIVE"),
        arrow("start -> a"),
        arrow("a -> m"),
        arrow("a -> mend", on="ERROR"),
        arrow("mend -> m"),
        arrow("m -> last"),
        arrow("last -> end"),
    )
    assert World(definition).failed("a#1").failed("last#1").failure.step_id == "last"


@pytest.mark.parametrize("ending", ["fail", "cancel", "terminate", "deadline"])
def test_every_bad_end_undoes_the_same(ending: str) -> None:
    steps: list[Document] = [action("a", **undoing()), confirm("ok")]
    if ending == "terminate":
        steps.append(step("over", "SYS_TERMINATE", outcome="FAILED"))
    if ending == "fail":
        steps.append(put("bad", x=expr("__context__.missing")))
    world = World(line(*steps, limits={"executionTimeout": 3600})).done("a#1")
    match ending:
        case "cancel":
            world.cancelled()
        case "deadline":
            world.fire("deadline")
        case _:
            world.done("ok#1")
    assert undone(world) == ["a#1"]
