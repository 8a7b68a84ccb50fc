"""Before a step begins: passed by, skipped, its status while active, its milestone, its mutex."""

from typing import Any

import pytest

from engine.protocol import CloseHumanTask
from tests.documents import Document, action, arrow, child, confirm, document, expr, join, line, put, split, wait_signal
from tests.engine.world import World

DISABLED = {"activationPolicy": {"defaultStatus": "DISABLED"}}


@pytest.mark.parametrize(("condition", "runs"), [("true", False), ("false", True)])
def test_a_step_is_skipped_when_its_condition_holds(condition: str, runs: bool) -> None:
    world = World(line(action("call", skipIf=condition)))
    assert (world.keys() == ["call#1"]) is runs
    assert world.statuses()["call"] == ("IN_PROGRESS" if runs else "SKIPPED")


def test_a_step_that_was_skipped_has_no_output_and_maps_nothing() -> None:
    mapping = [{"targetPath": "x", "value": 1}]
    world = World(line(action("call", skipIf="true", outputMapping=mapping)))
    assert world.output == {}
    assert "call" not in world.state.outputs


def test_a_skipped_step_reads_no_datasources() -> None:
    source = {"alias": "d", "dataSourceId": "test.read"}
    assert World(line(action("call", skipIf="true", dataSources=[source]))).output == {}


def test_a_disabled_step_is_passed_by() -> None:
    world = World(line(action("call", **DISABLED), confirm("ok")))
    assert world.statuses()["call"] == "DISABLED"
    assert world.keys() == ["ok#1"]


def test_a_condition_that_fails_can_be_parked_and_is_asked_again() -> None:
    definition = document(
        split("s"),
        action("call", skipIf="__context__.skip", onFailure="INCIDENT"),
        wait_signal("tell", outputMapping=[{"targetPath": "skip", "value": expr("__steps__.tell")}]),
        join("j"),
        arrow("start -> s"),
        arrow("s -> call"),
        arrow("s -> tell"),
        arrow("call -> j"),
        arrow("tell -> j"),
        arrow("j -> end"),
    )
    world = World(definition)
    assert world.keys() == ["call#1"]
    assert world.signal("tell", True).resolve("call#1", "RETRY").output == {"skip": True}
    assert world.statuses()["call"] == "SKIPPED"
    assert World(definition).signal("tell", False).resolve("call#1", "RETRY").done("call#1").output == {"skip": False}


def test_a_step_shows_the_status_of_the_transition_it_was_entered_by() -> None:
    policy = {"defaultStatus": "NOT_STARTED"}
    definition = document(
        action("call", activationPolicy=policy, onFailure="INCIDENT"),
        arrow("start -> call", onArrival={"status": "ACTION_REQUIRED"}),
        arrow("call -> end"),
    )
    world = World(definition)
    assert world.statuses()["call"] == "ACTION_REQUIRED"
    world.failed("call#1")
    assert world.statuses()["call"] == "INCIDENT"
    assert world.resolve("call#1", "RETRY").statuses()["call"] == "ACTION_REQUIRED"
    assert World(line(action("call", activationPolicy=policy))).statuses()["call"] == "NOT_STARTED"


def test_a_person_who_is_asked_again_is_shown_as_required() -> None:
    world = World(line(confirm("ok", timeout=60, onFailure="INCIDENT"))).fire("ok#1/timeout").resolve("ok#1", "RETRY")
    assert world.statuses()["ok"] == "ACTION_REQUIRED"


def guarded(step: Document, **fields: Any) -> Document:
    """A step beside a signal that writes `open` into the context, round and round."""
    return document(
        split("s"),
        {**step, "enabledWhile": "__context__.open"},
        join("again", "EXCLUSIVE"),
        wait_signal("tell", outputMapping=[{"targetPath": "open", "value": expr("__steps__.tell")}]),
        split("more", "EXCLUSIVE"),
        join("j"),
        arrow("start -> s"),
        arrow(f"s -> {step['id']}"),
        arrow("s -> again"),
        arrow("again -> tell"),
        arrow("tell -> more"),
        arrow("more -> again", condition="__steps__.tell != 'stop'"),
        arrow("more -> j", isDefault=True),
        arrow(f"{step['id']} -> j"),
        arrow("j -> end"),
        **fields,
    )


def test_a_step_opens_while_its_milestone_holds() -> None:
    assert World(guarded(confirm("ok")), {"open": True}).keys() == ["ok#1"]


def test_a_step_waits_for_its_milestone() -> None:
    world = World(guarded(confirm("ok")), {"open": False})
    assert world.keys() == []
    assert world.signal("tell", True).keys() == ["ok#1"]


@pytest.mark.parametrize("step", [confirm("x", timeout=60), action("x"), child("x"), wait_signal("x", timeout=60)])
def test_a_step_is_withdrawn_when_its_milestone_has_passed(step: Document) -> None:
    world = World(guarded(step), {"open": True}).signal("tell", False)
    assert world.statuses()["x"] == "SKIPPED"
    assert world.keys() == sorted(world.withdrawn)
    if step["type"] == "HUMAN_CONFIRM":
        assert CloseHumanTask("x#1", "CANCELLED") in world.commands


def test_items_are_withdrawn_with_their_milestone() -> None:
    over = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2, 3]"}}, "concurrency": 2}
    world = World(guarded(action("x", forEach=over)), {"open": True}).done("x#1/item/0").signal("tell", False)
    assert world.withdrawn == {"x#1/item/1", "x#1/item/2"}
    assert world.statuses()["x"] == "SKIPPED"
    world.settle()
    assert world.keys() == []
    assert not world.state.fans


def test_a_queued_attempt_is_withdrawn_with_its_milestone() -> None:
    world = World(guarded(action("x"), limits={"parallelism": 1}), {"open": True})
    assert world.signal("tell", False).statuses()["x"] == "SKIPPED"


def test_a_milestone_that_cannot_be_worked_out_stops_what_runs() -> None:
    world = World(guarded(action("x")), {"open": True}).signal("tell", "not a boolean")
    assert world.withdrawn == {"x#1"}
    assert world.settle().failure.step_id == "x"


def test_a_milestone_that_could_not_be_worked_out_holds_again_after_a_retry() -> None:
    world = World(guarded(confirm("x", onFailure="INCIDENT")), {"open": True}).signal("tell", "not a boolean")
    assert world.keys() == ["x#1"]
    world.signal("tell", False).resolve("x#1", "RETRY")
    assert world.keys() == []
    assert world.signal("tell", True).keys() == ["x#1"]
    assert world.signal("tell", False).statuses()["x"] == "SKIPPED"


def test_a_parked_step_is_closed_when_its_milestone_has_passed() -> None:
    world = World(guarded(action("x", onFailure="INCIDENT")), {"open": True}).failed("x#1").signal("tell", False)
    assert world.keys() == []
    assert world.statuses()["x"] == "SKIPPED"


def test_a_milestone_may_close_the_step_that_it_opened_in_a_loop() -> None:
    world = World(guarded(confirm("x")), {"open": True})
    world.signal("tell", True).done("x#1").signal("tell", "stop")
    assert world.output == {"open": "stop"}


def mutual(*names: str, **fields: Any) -> Document:
    """Actions with one mutex side by side."""
    parts: list[Document] = [split("s"), join("j"), arrow("start -> s"), arrow("j -> end")]
    for name in names:
        parts += [action(name, mutex="desk", **fields), arrow(f"s -> {name}"), arrow(f"{name} -> j")]
    return document(*parts)


def test_steps_with_one_mutex_never_run_at_once_and_go_in_their_order() -> None:
    world = World(mutual("b", "a", "c"))
    for name in ("b", "a", "c"):
        assert world.keys() == [f"{name}#1"]
        world.done(f"{name}#1")
    assert world.output == {}


def test_one_that_comes_later_does_not_go_before_those_that_wait() -> None:
    definition = mutual("a", "b")
    definition["steps"].append(action("after_a", mutex="desk"))
    definition["stepTransitions"] = [one for one in definition["stepTransitions"] if one["id"] != "a-j"]
    definition["stepTransitions"] += [arrow("a -> after_a"), arrow("after_a -> j")]
    world = World(definition).done("a#1")
    assert world.keys() == ["b#1"]
    assert world.done("b#1").done("after_a#1").output == {}


def test_a_mutex_is_given_back_by_a_step_that_fails() -> None:
    definition = mutual("a", "b")
    definition["steps"].append(put("mend", mended=True))
    definition["stepTransitions"] += [arrow("a -> mend", on="ERROR"), arrow("mend -> j")]
    world = World(definition).failed("a#1")
    assert world.keys() == ["b#1"]


def test_a_parked_step_keeps_its_mutex() -> None:
    world = World(mutual("a", "b", onFailure="INCIDENT")).failed("a#1")
    assert world.keys() == ["a#1"]
    assert world.resolve("a#1", "RETRY").done("a#1").keys() == ["b#1"]


def test_a_mutex_holds_between_visits_of_one_step() -> None:
    definition = document(
        split("s"),
        put("x", x=1),
        put("y", y=1),
        join("m", "EXCLUSIVE"),
        action("a", mutex="desk"),
        arrow("start -> s"),
        arrow("s -> x"),
        arrow("s -> y"),
        arrow("x -> m"),
        arrow("y -> m"),
        arrow("m -> a"),
        arrow("a -> end"),
    )
    world = World(definition)
    assert world.keys() == ["a#1"]
    assert world.done("a#1").keys() == ["a#2"]
    world.done("a#2")
    assert world.ended is not None


def test_a_mutex_is_held_over_all_items_and_iterations() -> None:
    over = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}}
    definition = mutual("a", "b")
    first = next(part for part in definition["steps"] if part["id"] == "a")
    first.update({"forEach": over, "repeat": {"until": "__iteration__ = 1"}})
    world = World(definition)
    for key in ("a#1/item/0/round/0", "a#1/item/1/round/0", "a#1/item/1/round/1", "a#1/item/0/round/1"):
        assert "b#1" not in world.open
        world.done(key)
    assert world.keys() == ["b#1"]


def test_a_step_that_waits_for_its_mutex_may_be_withdrawn() -> None:
    world = World(mutual("a", "b")).failed("a#1")
    assert world.failure.step_id == "a"
    assert world.statuses()["b"] == "CANCELLED"
