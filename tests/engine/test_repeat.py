"""Steps that are done again and again."""

from typing import Any

import pytest

from engine.protocol import SpawnChildren
from tests.documents import Document, action, child, confirm, expr, line, wait_signal
from tests.engine.world import World


def again(*, step: Document | None = None, **repeat: Any) -> Document:
    """The action `call`, repeated; it is told its iteration and what the last one fed back."""
    parameters = [expr("__iteration__"), expr("__previous__")]
    return line(action("call", parameters=parameters, repeat=repeat, **(step or {})), output=expr("__steps__.call"))


def test_until_is_asked_after_each_iteration() -> None:
    world = World(again(until="__result__ > 2"))
    for number in range(4):
        world.done(f"call#1/round/{number}", number)
    assert world.output == [0, 1, 2, 3]
    assert world.state.steps["call"].visits == 1


def test_while_is_asked_before_each_iteration() -> None:
    world = World(again(**{"while": "__iteration__ < 2"}))
    assert world.done("call#1/round/0", "a").done("call#1/round/1", "b").output == ["a", "b"]


def test_a_step_whose_while_never_holds_gives_nothing() -> None:
    assert World(again(**{"while": "false"})).output == []


def test_the_result_is_seen_by_the_next_iteration() -> None:
    world = World(again(until="__iteration__ = 2"))
    assert world.command("call#1/round/0").parameters == [0, None]
    assert world.done("call#1/round/0", "x").command("call#1/round/1").parameters == [1, "x"]


def test_feedback_says_what_the_next_iteration_sees() -> None:
    world = World(again(until="__iteration__ = 2", feedback=expr("__result__.cursor")))
    assert world.done("call#1/round/0", {"cursor": "c1"}).command("call#1/round/1").parameters == [1, "c1"]


@pytest.mark.parametrize("repeat", [{"until": "false"}, {"while": "true"}])
def test_a_step_that_never_stops_fails_after_so_many_iterations(repeat: dict[str, Any]) -> None:
    world = World(again(**repeat, maxIterations=2)).done("call#1/round/0").done("call#1/round/1")
    assert world.failure.code == "REPEAT_LIMIT_EXCEEDED"


def test_an_iteration_that_fails_fails_the_step() -> None:
    assert World(again(until="false")).done("call#1/round/0").failed("call#1/round/1").failure.step_id == "call"


def test_an_operator_goes_on_with_the_iteration_that_failed() -> None:
    world = World(again(until="__iteration__ = 1", step={"onFailure": "INCIDENT"}))
    world.done("call#1/round/0", "a").failed("call#1/round/1").resolve("call#1", "RETRY")
    assert world.done("call#1/round/1", "b").output == ["a", "b"]


def test_an_operator_completes_the_iteration_that_failed() -> None:
    world = World(again(until="__iteration__ = 1", step={"onFailure": "INCIDENT"}))
    world.done("call#1/round/0", "a").failed("call#1/round/1").resolve("call#1", "COMPLETE", output="b")
    assert world.output == ["a", "b"]


def test_a_condition_that_cannot_be_worked_out_fails_the_step() -> None:
    assert World(again(until="__result__.missing")).done("call#1/round/0", {}).failure.step_id == "call"


def test_each_iteration_has_attempts_of_its_own() -> None:
    repeat = {"until": "__iteration__ = 1"}
    world = World(line(child("kid", repeat=repeat, retry={"maxAttempts": 2})))
    world.failed("kid#1/round/0").fire("kid#1/retry").done("kid#1/round/0")
    world.failed("kid#1/round/1").fire("kid#1/retry").done("kid#1/round/1")
    assert [command.attempt for command in world.said(SpawnChildren)] == [1, 2, 3, 4]
    assert world.ended is not None


def test_a_person_is_asked_again_and_again() -> None:
    world = World(
        line(confirm("ok", repeat={"until": "__result__.outcome = 'yes'"}, outcomes=["yes", "no"], timeout=60))
    )
    world.done("ok#1", "no").done("ok#1", "no").done("ok#1", "yes")
    assert [entry["outcome"] for entry in world.output_of("ok")] == ["no", "no", "yes"]
    assert world.ended is not None


def test_a_signal_is_waited_for_again_and_again() -> None:
    world = World(line(wait_signal("beat", repeat={"until": "__result__ = 3"}), output=expr("__steps__.beat")))
    assert world.signal("beat", 1).signal("beat", 2).signal("beat", 3).output == [1, 2, 3]


def test_items_repeat_each_for_itself() -> None:
    over = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}}
    call = action("call", repeat={"until": "__iteration__ + 1 = __each__"}, forEach=over)
    world = World(line(call, output=expr("__steps__.call")))
    assert world.keys() == ["call#1/item/0/round/0", "call#1/item/1/round/0"]
    world.done("call#1/item/1/round/0", "b0").done("call#1/item/0/round/0", "a0").done("call#1/item/1/round/1", "b1")
    assert world.output == [["a0"], ["b0", "b1"]]


def test_each_iteration_is_undone_for_itself() -> None:
    undo = {"actionKey": "test.undo", "parameters": [expr("__iteration__"), expr("__result__")]}
    world = World(again(until="__iteration__ = 2", step={"compensate": undo}))
    world.done("call#1/round/0", "a").done("call#1/round/1", "b").failed("call#1/round/2")
    assert world.command("call#1/round/1/compensate").parameters == [1, "b"]
    world.done("call#1/round/1/compensate")
    assert world.command("call#1/round/0/compensate").parameters == [0, "a"]
    assert world.done("call#1/round/0/compensate").failure.step_id == "call"
