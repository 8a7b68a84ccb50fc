"""Taking a closed run up again."""

from typing import Any

import pytest

from engine.errors import EngineError
from engine.events import ActionSuspended, PauseRequested, StepResumed
from engine.protocol import Complete, Fail, RunAction
from engine.repair import Point, resume_from, retry_failed
from tests.documents import action, arrow, batch, child, confirm, document, expr, join, line, parallel, put, split, step
from tests.engine.world import BEGAN, World

UNDO = {"actionKey": "test.undo"}


def retried(world: World) -> World:
    return world.taken_up(retry_failed(world.plan, world.state, world.tick()))


def resumed(world: World, step_id: str, **fields: Any) -> World:
    return world.taken_up(resume_from(world.plan, world.state, Point(step_id, **fields), world.tick()))


def code_of(world: World, step_id: str, **fields: Any) -> str:
    with pytest.raises(EngineError) as refused:
        resume_from(world.plan, world.state, Point(step_id, **fields), world.tick())
    return refused.value.code


def test_a_retry_makes_the_failed_step_s_attempt_again_under_the_same_key() -> None:
    world = World(line(action("a"), action("b"), output=expr("__steps__.b"))).done("a#1").failed("b#1")
    key = next(one.idempotency_key for one in world.commands if isinstance(one, RunAction) and one.key == "b#1")
    retried(world)
    again = [one for one in world.commands if isinstance(one, RunAction)]
    assert [one.key for one in again] == ["b#1"]
    assert again[0].idempotency_key == key
    assert world.done("b#1", 5).output == 5


def test_a_retry_takes_up_the_branches_that_were_withdrawn_with_the_failed_one() -> None:
    world = World(parallel("a", "b", "c")).done("c#1").failed("a#1").settle()
    retried(world)
    assert world.keys() == ["a#1", "b#1"]
    world.done("a#1").done("b#1")
    assert isinstance(world.ended, Complete)


def test_a_retry_does_not_do_again_what_was_withdrawn_and_succeeded_all_the_same() -> None:
    world = World(parallel("a", "b") | {"output": expr("__steps__.b")}).failed("a#1").done("b#1", "late")
    retried(world)
    assert world.keys() == ["a#1"]
    assert world.statuses()["b"] == "COMPLETED"
    assert world.done("a#1").output == "late"


def test_what_succeeded_late_is_undone_once_after_a_retry_that_fails_too() -> None:
    definition = parallel("a", "b")
    next(one for one in definition["steps"] if one["id"] == "b")["compensate"] = UNDO
    world = World(definition).cancelled(compensate=False).failed("a#1").done("b#1")
    retried(world).failed("a#1")
    assert world.keys() == ["b#1/compensate"]
    world.done("b#1/compensate")
    assert isinstance(world.ended, Fail)


def test_a_retry_goes_on_with_the_iteration_after_one_that_succeeded_late() -> None:
    definition = parallel("a", "b") | {"output": expr("__steps__.b")}
    next(one for one in definition["steps"] if one["id"] == "b")["repeat"] = {"while": "__iteration__ < 2"}
    world = World(definition).failed("a#1").done("b#1/round/0", 0)
    retried(world)
    assert world.keys() == ["a#1", "b#1/round/1"]
    assert world.done("a#1").done("b#1/round/1", 1).output == [0, 1]


def test_a_late_success_whose_output_cannot_be_written_is_done_again_and_undone_once() -> None:
    definition = parallel("a", "b")
    wrong = [{"targetPath": "x", "value": expr("$error('no')")}]
    next(one for one in definition["steps"] if one["id"] == "b").update(compensate=UNDO, outputMapping=wrong)
    world = World(definition).cancelled(compensate=False).failed("a#1").done("b#1")
    retried(world)
    assert world.keys() == ["a#1", "b#1"]
    world.failed("a#1").done("b#1")
    assert world.keys() == ["b#1/compensate"]


def test_a_retry_of_a_batch_begins_only_what_has_no_result_again_as_another_child() -> None:
    world = World(line(batch("all", "[1..3]", concurrency=3), output=expr("__steps__.all")))
    world.done("all#1/item/0", "x").failed("all#1/item/1")
    world.settle()
    retried(world)
    assert world.keys() == ["all#1/item/1", "all#1/item/2"]
    spawned: Any = world.open["all#1/item/1"]
    assert spawned.attempt == 2
    assert world.done("all#1/item/1", "y").done("all#1/item/2", "z").output == ["x", "y", "z"]


def test_a_retry_of_a_batch_keeps_what_items_gave_that_were_withdrawn() -> None:
    world = World(line(batch("all", "[1..3]", concurrency=3), output=expr("__steps__.all")))
    world.done("all#1/item/0", "x").failed("all#1/item/1").done("all#1/item/2", "late")
    retried(world)
    assert world.keys() == ["all#1/item/1"]
    assert world.done("all#1/item/1", "y").output == ["x", "y", "late"]


def test_a_retry_asks_the_person_again_who_had_not_answered() -> None:
    world = World(
        document(
            split("s"),
            confirm("person"),
            action("bad"),
            join("j"),
            *(arrow(text) for text in ("start -> s", "s -> person", "s -> bad", "person -> j", "bad -> j", "j -> end")),
        )
    ).failed("bad#1")
    assert retried(world).keys() == ["bad#1", "person#1"]


def test_a_gateway_that_failed_is_entered_again() -> None:
    world = World(
        document(
            confirm("person"),
            split("x", "EXCLUSIVE"),
            put("a", a=1),
            join("j", "EXCLUSIVE"),
            *(arrow(text) for text in ("start -> person", "person -> x", "a -> j", "j -> end")),
            arrow("x -> a", condition="__context__.missing"),
            arrow("x -> j", isDefault=True),
        )
    ).done("person#1")
    assert world.failure.step_id == "x"
    retried(world)
    assert world.failure.step_id == "x", "nothing has been mended, so it fails again"


def test_what_was_compensated_is_not_retried() -> None:
    world = World(line(action("a", compensate=UNDO), action("b"))).done("a#1").failed("b#1").done("a#1/compensate")
    with pytest.raises(EngineError) as refused:
        retry_failed(world.plan, world.state, world.tick())
    assert refused.value.code == "COMPENSATED"
    assert "replay" in str(refused.value)
    assert code_of(world, "b") == "COMPENSATED"
    resumed(world, "a")
    assert world.keys() == ["a#2"]


def test_a_completed_run_has_nothing_to_retry_but_can_be_resumed_from_a_step() -> None:
    world = (
        World(line(action("a"), action("b"), output=expr("__steps__.a & __steps__.b")))
        .done("a#1", "1")
        .done("b#1", "2")
    )
    with pytest.raises(EngineError) as refused:
        retry_failed(world.plan, world.state, world.tick())
    assert refused.value.code == "NOTHING_FAILED"
    resumed(world, "b")
    assert world.keys() == ["b#2"]
    assert world.done("b#2", "3").output == "13"


def test_an_output_that_is_given_takes_the_place_of_doing_the_step_again() -> None:
    world = (
        World(line(action("a"), action("b"), output=expr("__steps__.a & __steps__.b")))
        .done("a#1", "1")
        .done("b#1", "2")
    )
    resumed(world, "a", gives_output=True, output="9")
    assert world.keys() == ["b#2"]
    assert world.done("b#2", "3").output == "93"


def test_a_context_that_is_given_takes_the_place_of_the_one_there_was() -> None:
    world = World(line(action("a"), put("b", x=expr("__context__.n + 1"))), {"n": 1}).done("a#1")
    assert world.output == {"n": 1, "x": 2}
    assert resumed(world, "a", context={"n": 10}).done("a#2").output == {"n": 10, "x": 11}


def test_a_join_has_what_the_other_branches_had_brought() -> None:
    world = World(parallel("a", "b", "c")).done("a#1").done("b#1").done("c#1")
    assert isinstance(world.ended, Complete)
    resumed(world, "b")
    assert world.keys() == ["b#2"]
    assert isinstance(world.done("b#2").ended, Complete)


def test_the_region_around_a_step_is_open_again() -> None:
    definition = document(
        split("s"),
        action("a"),
        action("b"),
        step("j", "GATEWAY_PARALLEL_JOIN", join={"policy": "ALL_SETTLED"}),
        *(arrow(text) for text in ("start -> s", "s -> a", "s -> b", "a -> j", "b -> j", "j -> end")),
        output=expr("__steps__.j"),
    )
    world = World(definition).done("a#1", 1).failed("b#1")
    assert [one["status"] for one in world.output] == ["COMPLETED", "FAILED"]
    resumed(world, "b")
    assert world.keys() == ["b#2"]
    assert [one.get("output") for one in world.done("b#2", 2).output] == [1, 2]


def test_one_item_is_done_again_and_the_others_keep_what_they_gave() -> None:
    world = World(line(batch("all", "[1..3]"), output=expr("__steps__.all")))
    for index in range(3):
        world.done(f"all#1/item/{index}", index)
    resumed(world, "all", item=1)
    assert world.keys() == ["all#2/item/1"]
    assert world.done("all#2/item/1", "again").output == [0, "again", 2]


def test_what_does_not_apply_is_refused() -> None:
    world = World(line(action("a"), action("b"))).done("a#1").failed("b#1")
    assert code_of(world, "nowhere") == "STEP_NOT_FOUND"
    assert code_of(world, "end") == "STEP_NOT_RUN"
    assert code_of(world, "a", visit=2) == "STEP_NOT_RUN"
    assert code_of(world, "a", item=0) == "ITEM_NOT_FOUND"


def beside(one: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A step beside an action `bad`."""
    name = one["id"]
    return document(
        split("s"),
        one,
        action("bad"),
        join("j"),
        *(arrow(text) for text in ("start -> s", f"s -> {name}", "s -> bad", f"{name} -> j", "bad -> j", "j -> end")),
        **fields,
    )


def test_children_of_a_batch_that_was_under_way_are_spawned_again_as_others() -> None:
    world = World(beside(batch("all", "[1..2]"))).failed("bad#1")
    world.failed("all#1/item/0", "CANCELLED").failed("all#1/item/1", "CANCELLED")
    spawned: Any = retried(world).open["all#1/item/0"]
    assert spawned.attempt == 2


def test_children_of_a_chunk_that_was_under_way_are_spawned_again_as_others() -> None:
    world = World(beside(batch("all", "[1..600]", concurrency=4))).failed("bad#1")
    for key in world.outside():
        world.failed(key, "CANCELLED")
    chunk: Any = retried(world).open["all#1/batch/0"]
    assert min(chunk.state["fans"]["all#1"]["tries"].values()) >= 1_000


def test_a_step_over_items_that_was_parked_is_taken_up_by_its_items() -> None:
    each = action("it", forEach={"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..2]"}}}, onFailure="INCIDENT")
    world = World(beside(each)).failed("it#1/item/0").failed("bad#1")
    for key in world.outside():
        world.failed(key, "CANCELLED")
    assert retried(world).keys() == ["bad#1", "it#1/item/0", "it#1/item/1"]


def test_a_buffered_signal_is_there_after_a_retry() -> None:
    waits = step("wait", "SYS_WAIT_SIGNAL", signal="paid")
    world = (
        World(line(action("a"), waits, output=expr("__steps__.wait"))).signal("paid", 5, signal_id="one").failed("a#1")
    )
    assert retried(world).done("a#1").output == 5


def test_a_suspended_action_still_waits_for_its_resume_after_a_retry() -> None:
    world = World(beside(action("asks")))
    world.open.pop("asks#1")
    world.give(ActionSuspended("asks#1", BEGAN + 1, {"token": 1})).failed("bad#1")
    assert retried(world).keys() == ["bad#1"]
    world.give(StepResumed("asks#1", world.tick(), "go"))
    again: Any = world.open["asks#1"]
    assert (again.resumed.suspended, again.resumed.data) == ({"token": 1}, "go")


def test_a_cancel_lets_a_paused_run_that_failed_go_on_with_undoing() -> None:
    world = World(line(action("a", compensate=UNDO), action("b"))).done("a#1")
    world.give(PauseRequested(world.tick())).failed("b#1")
    assert world.keys() == []
    world.cancelled()
    assert world.keys() == ["a#1/compensate"]


def test_a_chunked_batch_that_repeats_is_withdrawn_under_its_own_keys() -> None:
    again = {"until": "__iteration__ = 1"}
    world = World(beside(batch("all", "[1..600]", concurrency=2, repeat=again))).failed("bad#1")
    assert world.withdrawn == {"all#1/batch/0", "all#1/batch/300"}


def test_a_run_that_was_paused_at_its_end_is_not_when_it_is_taken_up_again() -> None:
    world = retried(World(beside(confirm("person"))).paused().failed("bad#1"))
    assert (world.state.paused, world.state.paused_at, world.state.paused_by) == (False, 0, None)


def test_a_delay_that_was_pending_is_over_at_the_time_it_was_set_for() -> None:
    world = World(beside(step("later", "SYS_DELAY", duration="PT1H"))).failed("bad#1")
    world.tick(600_000)
    assert retried(world).keys() == ["bad#1", "later#1/delay"]
    assert world.command("later#1/delay").due == BEGAN + 3_600_000
    world.fire("later#1/delay").done("bad#1")
    assert isinstance(world.ended, Complete)
    assert world.state.steps["later"].visits == 1


def test_a_person_whose_time_ran_out_and_failed_the_run_is_given_all_of_it_again() -> None:
    escalation = {"assignment": {"candidateGroups": ["chiefs"]}}
    person = confirm("person", timeout="PT2H", dueIn="PT1H", escalation=escalation)
    world = World(line(person)).fire("person#1/due").fire("person#1/timeout")
    world.tick(86_400_000)
    retried(world)
    assert world.command("person#1").due == world.at + 3_600_000
    assert world.command("person#1/due").due == world.at + 3_600_000
    assert world.command("person#1/timeout").due == world.at + 7_200_000


def test_a_delay_that_has_come_due_meanwhile_is_over_at_once() -> None:
    world = World(beside(step("later", "SYS_DELAY", duration="PT1H"))).failed("bad#1")
    world.tick(7_200_000)
    assert retried(world).command("later#1/delay").due == BEGAN + 3_600_000 < world.at
    assert isinstance(world.fire("later#1/delay").done("bad#1").ended, Complete)


def test_a_delay_beside_the_step_that_a_run_is_resumed_from_keeps_its_end() -> None:
    world = World(beside(step("later", "SYS_DELAY", duration="PT1H"))).failed("bad#1")
    assert resumed(world, "bad").command("later#1/delay").due == BEGAN + 3_600_000


def test_whoever_was_asked_keeps_the_time_left_and_the_one_it_escalates_to() -> None:
    escalation = {"assignment": {"candidateGroups": ["chiefs"]}}
    person = confirm("person", timeout="PT2H", dueIn="PT1H", escalation=escalation)
    world = World(beside(person)).failed("bad#1")
    world.tick(600_000)
    retried(world)
    assert world.command("person#1").due == BEGAN + 3_600_000
    assert world.command("person#1/due").due == BEGAN + 3_600_000
    assert world.command("person#1/timeout").due == BEGAN + 7_200_000


def test_whoever_was_asked_and_goes_to_nobody_else_keeps_the_time_left() -> None:
    each = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1]"}}}
    for fields, key in (({}, "person#1"), ({"forEach": each}, "person#1/item/0")):
        world = World(beside(confirm("person", dueIn="PT1H", **fields))).failed("bad#1")
        world.tick(600_000)
        retried(world)
        assert world.command(key).due == BEGAN + 3_600_000


def test_a_wait_whose_time_is_over_meanwhile_times_out_and_its_next_attempt_has_all_its_time() -> None:
    waits = step("wait", "SYS_WAIT_SIGNAL", signal="paid", timeout="PT1H", retry={"maxAttempts": 2, "jitter": 0})
    world = World(beside(waits)).failed("bad#1")
    world.tick(7_200_000)
    retried(world).fire("wait#1/timeout").fire("wait#1/retry")
    assert world.command("wait#1/timeout").due == world.at + 3_600_000


def test_each_item_that_was_asked_keeps_the_time_left() -> None:
    each = confirm("ask", forEach={"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..2]"}}}, timeout="PT1H")
    world = World(beside(each)).failed("bad#1")
    world.tick(600_000)
    retried(world)
    assert {world.command(f"ask#1/item/{item}/timeout").due for item in range(2)} == {BEGAN + 3_600_000}


def test_a_terminated_run_s_delay_keeps_its_end() -> None:
    world = World(line(step("later", "SYS_DELAY", duration="PT1H")))
    assert retried(world).command("later#1/delay").due == BEGAN + 3_600_000


def test_a_child_that_is_spawned_again_has_all_its_time() -> None:
    each = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1]"}}}
    for fields, key in (({}, "sub#1"), ({"forEach": each}, "sub#1/item/0")):
        world = World(beside(child("sub", timeout="PT1H", **fields))).failed("bad#1").failed(key, "CANCELLED")
        world.tick(600_000)
        assert retried(world).command(f"{key}/timeout").due == world.state.at + 3_600_000


def test_a_person_s_step_that_is_taken_up_again_asks_for_action_again() -> None:
    over_items = confirm("each") | {"forEach": {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}}}
    for definition in (line(confirm("a")), line(over_items)):
        world = World(definition)
        before = world.statuses()
        assert "ACTION_REQUIRED" in before.values()
        retried(world.cancelled(compensate=False).settle())
        assert world.statuses() == before


def test_a_step_that_is_taken_up_again_shows_what_its_transition_says() -> None:
    world = World(line(confirm("a") | {"activationPolicy": {"defaultStatus": "NOT_STARTED"}}))
    retried(world.cancelled(compensate=False).settle())
    assert world.statuses()["a"] == "NOT_STARTED"


def test_an_item_that_a_person_does_again_asks_for_action() -> None:
    over_items = confirm("each") | {"forEach": {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}}}
    world = World(line(over_items)).done("each#1/item/0").done("each#1/item/1")
    resumed(world, "each", item=1)
    assert world.statuses()["each"] == "ACTION_REQUIRED"
