"""Pause and resume. `World` sees to it that nothing is begun while a run is paused."""

from typing import Any

import pytest

from engine.events import PauseRequested, ResumeRequested
from engine.protocol import TellChildren
from tests.documents import (
    Document,
    action,
    arrow,
    batch,
    child,
    confirm,
    delay,
    document,
    expr,
    join,
    line,
    split,
    wait_signal,
)
from tests.engine.world import World

UNDO = {"actionKey": "test.undo", "parameters": 1}


def test_a_running_attempt_finishes_and_nothing_follows_before_the_run_is_resumed() -> None:
    world = World(line(action("a"), action("b"))).paused().done("a#1")
    assert world.keys() == []
    assert world.resumed().keys() == ["b#1"]


def test_a_second_pause_and_a_resume_without_one_change_nothing() -> None:
    world = World(line(action("a")))
    world.changes_nothing(ResumeRequested(world.tick()))
    world.paused()
    world.changes_nothing(PauseRequested(world.tick()))


def test_a_run_that_has_ended_cannot_be_paused() -> None:
    world = World(line())
    world.changes_nothing(PauseRequested(world.tick()))


def test_a_timer_that_comes_due_meanwhile_counts_afterwards() -> None:
    world = World(line(delay("wait"), action("a"))).paused().fire("wait#1/delay")
    assert world.keys() == []
    assert world.resumed().keys() == ["a#1"]


def test_a_person_may_answer_meanwhile() -> None:
    world = World(line(confirm("ok"), action("a"))).paused().done("ok#1")
    assert world.statuses()["ok"] == "COMPLETED"
    assert world.resumed().keys() == ["a#1"]


def test_a_signal_may_come_meanwhile() -> None:
    world = World(line(wait_signal("paid"), wait_signal("sent"), action("a"))).paused().signal("paid").signal("sent")
    assert world.resumed().keys() == ["a#1"]


def test_an_operator_may_decide_meanwhile() -> None:
    world = World(line(action("a", onFailure="INCIDENT"))).failed("a#1").paused().resolve("a#1", "RETRY")
    assert world.keys() == []
    assert world.resumed().keys() == ["a#1"]


def test_the_pause_before_another_attempt_begins_when_the_run_is_resumed() -> None:
    world = World(line(child("kid", retry={"maxAttempts": 2, "initialInterval": 60}))).paused().failed("kid#1")
    assert world.keys() == []
    world.tick(1_000_000)
    world.resumed()
    assert world.command("kid#1/retry").due == world.at + 60_000


def test_an_attempt_whose_pause_is_over_waits_for_the_resume() -> None:
    world = World(line(child("kid", retry={"maxAttempts": 2}))).failed("kid#1").paused().fire("kid#1/retry")
    assert world.keys() == []
    assert world.resumed().keys() == ["kid#1"]


def test_items_and_iterations_wait_too() -> None:
    world = World(line(batch("kids", "[1, 2, 3]", concurrency=1))).paused().done("kids#1/item/0")
    assert world.keys() == []
    assert world.resumed().keys() == ["kids#1/item/1"]
    world = World(line(action("a", repeat={"until": "__iteration__ = 1"}))).paused().done("a#1/round/0")
    assert world.keys() == []
    assert world.resumed().keys() == ["a#1/round/1"]


def test_a_suspended_action_is_entered_again_after_the_resume() -> None:
    world = World(line(action("a"))).suspended("a#1").paused().entered_again("a#1", 1)
    assert world.keys() == []
    assert world.resumed().command("a#1").resumed.data == 1


def test_datasources_read_meanwhile_are_used_afterwards() -> None:
    source = {"alias": "d", "dataSourceId": "test.read"}
    call = action("a", dataSources=[source], parameters=expr("__datasources__.d"))
    world = World(line(call)).paused().done("a#1/data/d", 7)
    assert world.keys() == []
    assert world.resumed().command("a#1").parameters == 7


def test_a_mutex_that_is_given_back_is_taken_after_the_resume() -> None:
    definition = document(
        split("s"),
        action("a", mutex="m"),
        action("b", mutex="m"),
        join("j"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> end"),
    )
    world = World(definition).paused().done("a#1")
    assert world.keys() == []
    assert world.resumed().keys() == ["b#1"]


def test_running_children_are_told_and_others_are_not() -> None:
    world = World(line(action("first", compensate=UNDO), batch("kids", "[1, 2]"))).done("first#1")
    world.done("kids#1/item/0").paused().resumed()
    assert [command for command in world.commands if isinstance(command, TellChildren)] == [
        TellChildren(("kids#1/item/1",), "PAUSE"),
        TellChildren(("kids#1/item/1",), "RESUME"),
    ]


def undoing() -> World:
    """A run that is compensating a child step and an action."""
    steps = (action("one", compensate=UNDO), child("kid", compensate=UNDO), action("last"))
    return World(line(*steps)).done("one#1").done("kid#1").failed("last#1")


def test_compensation_waits_for_the_resume() -> None:
    world = undoing().paused()
    assert world.keys() == ["kid#1/compensate"]
    assert world.done("kid#1/compensate").keys() == []
    assert world.resumed().done("one#1/compensate").failure.step_id == "last"


def test_an_operator_may_retry_a_compensator_while_the_run_is_paused() -> None:
    world = undoing().failed("kid#1/compensate").paused().done("one#1/compensate").resolve("kid#1/compensate", "RETRY")
    assert world.keys() == []
    assert world.resumed().done("kid#1/compensate").failure.step_id == "last"


def test_a_compensator_is_no_child_that_could_be_told() -> None:
    world = undoing().paused()
    assert [command for command in world.commands if isinstance(command, TellChildren)] == []


def test_a_cancel_ends_a_paused_run() -> None:
    world = World(line(action("one", compensate=UNDO), confirm("ok"))).done("one#1").paused().cancelled()
    world.done("one#1/compensate")
    assert type(world.ended).__name__ == "Cancel"


def test_a_run_that_fails_while_it_is_paused_ends_when_it_is_resumed() -> None:
    world = World(line(action("one", compensate=UNDO), action("two"))).done("one#1").paused().failed("two#1")
    assert world.ended is None
    assert world.resumed().done("one#1/compensate").failure.step_id == "two"


@pytest.mark.parametrize("kind", ["human", "child"])
def test_an_attempt_that_takes_too_long_while_the_run_is_paused_is_made_again_after_the_resume(kind: str) -> None:
    fields: Document = {"timeout": 60, "retry": {"maxAttempts": 2, "initialInterval": 5}}
    step: dict[str, Any] = confirm("x", **fields) if kind == "human" else child("x", **fields)
    world = World(line(step)).paused().fire("x#1/timeout").settle()
    assert world.keys() == []
    assert world.resumed().keys() == ["x#1/retry"]
