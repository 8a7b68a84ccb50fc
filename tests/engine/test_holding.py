"""How much a step, a chunk and a run may hold: beyond it there is a coded failure, never a standstill."""

from typing import Any

import pytest

from engine.events import StateOutgrown
from engine.holding import COUNTS_RESULTS, LARGEST_OF_STEP
from engine.protocol import Complete, Fail
from engine.state_json import state_from_json, state_to_json
from tests.documents import Document, action, arrow, batch, document, expr, join, line, put, split
from tests.engine.test_chunks import chunk_of, report_of
from tests.engine.test_for_each import over
from tests.engine.world import World

TEN_MEBIBYTES = "x" * (10 * 1024 * 1024)


def each(**fields: Any) -> Document:
    call = action("call", parameters=expr("__each__"), forEach=over("[1..5]", **fields), onFailure="INCIDENT")
    return line(call)


def given(world: World, step_id: str) -> Any:
    """What a step of a run that has completed gave."""
    assert isinstance(world.ended, Complete), world.ended
    return world.state.outputs[step_id]


def filled(definition: Document, **run: Any) -> World:
    """Three of five items have given ten MiB each, and the fourth gives as much."""
    world = World(definition, **run)
    for index in range(4):
        world.done(f"call#1/item/{index}", TEN_MEBIBYTES)
    return world.settle()


def test_an_item_whose_result_the_step_cannot_hold_any_more_fails_with_a_code() -> None:
    world = filled(each())
    [incident] = [work for work in world.state.work.values() if work.failure is not None]
    assert incident.failure is not None
    assert incident.failure.code == "RESULT_TOO_LARGE"
    assert str(LARGEST_OF_STEP) in incident.failure.message
    assert sorted(world.state.fans["call#1"].results) == [0, 1, 2]


def test_an_operator_who_retries_such_a_step_gets_the_item_done_again_and_it_may_give_less() -> None:
    world = filled(each()).resolve("call#1", "RETRY")
    world.done("call#1/item/3", "short").done("call#1/item/4", "short")
    assert given(world, "call")[3:] == ["short", "short"]


def test_the_failure_of_such_an_item_can_be_collected() -> None:
    world = filled(each(failurePolicy="COLLECT")).done("call#1/item/4", "short")
    assert given(world, "call")[3]["error"]["code"] == "RESULT_TOO_LARGE"


def test_a_run_that_began_before_results_were_counted_goes_on_as_it_began() -> None:
    world = filled(each(), revision=COUNTS_RESULTS - 1)
    assert sorted(world.state.fans["call#1"].results) == [0, 1, 2, 3]
    assert world.state.fans["call#1"].held == 0


def test_what_is_counted_is_part_of_the_state() -> None:
    world = World(each()).done("call#1/item/0", "0123456789")
    assert state_from_json(state_to_json(world.state)).fans["call#1"].held == len('"0123456789"')


def test_the_iterations_of_a_step_are_counted_together_too() -> None:
    world = World(line(action("call", repeat={"until": "__iteration__ = 9"})))
    for index in range(4):
        world.done(f"call#1/round/{index}", TEN_MEBIBYTES)
    assert isinstance(world.ended, Fail)
    assert world.ended.failure.code == "RESULT_TOO_LARGE"


@pytest.mark.parametrize("policy", ["FAIL_FAST", "COLLECT"])
def test_results_of_chunks_that_do_not_fit_together_fail_their_items(policy: str) -> None:
    world = World(line(batch("all", "[1..600]", concurrency=500, failurePolicy=policy)))
    for number, key in enumerate(sorted(world.open)):
        inner = chunk_of(world, key)
        first = 300 * number
        for item in range(first, first + 300):
            if f"all#1/item/{item}" not in inner.open:
                continue
            large = item - first < 2
            inner.done(f"all#1/item/{item}", TEN_MEBIBYTES if large else "short")
        while inner.open:
            inner.done(min(inner.open), "short")
        world.done(key, report_of(inner))
    if policy == "COLLECT":
        codes = [one["error"]["code"] for one in given(world, "all") if isinstance(one, dict)]
        assert codes == ["RESULT_TOO_LARGE"]
    else:
        assert isinstance(world.ended, Fail)
        assert world.ended.failure.code == "RESULT_TOO_LARGE"
        assert "item 301" in world.ended.failure.message


def test_a_chunk_that_would_begin_with_too_much_fails_the_step() -> None:
    large = action("large", forEach=over("[1..3]"))
    again = action("again", forEach=over("[1..3]"))
    world = World(line(large, again, batch("all", "[1..600]")))
    for step in ("large", "again"):
        for index in range(3):
            world.done(f"{step}#1/item/{index}", TEN_MEBIBYTES)
    assert isinstance(world.ended, Fail)
    assert (world.ended.failure.code, world.ended.failure.step_id) == ("STATE_TOO_LARGE", "all")


def test_a_context_that_is_too_large_to_be_given_as_the_output_fails_the_run() -> None:
    copies = [put(f"p{number}", **{f"v{number}": expr("__context__.first")}) for number in range(5)]
    world = World(line(*copies), {"first": "x" * (7 * 1024 * 1024)})
    assert isinstance(world.ended, Fail)
    assert world.ended.failure.code == "RESULT_TOO_LARGE"


def test_a_run_that_cannot_pass_its_state_on_withdraws_what_is_under_way_and_fails() -> None:
    world = World(line(action("call")))
    world.give(StateOutgrown(world.tick(), 70_000_000)).settle()
    assert isinstance(world.ended, Fail)
    assert world.ended.failure.code == "STATE_TOO_LARGE"
    assert "70000000" in world.ended.failure.message


@pytest.mark.parametrize("kind", ["batch", "forEach"])
def test_what_many_items_are_given_is_handed_over_bit_by_bit(kind: str) -> None:
    large = {"large": "x" * (7 * 1024 * 1024)}
    step = action("all", forEach=over("[1..10]"), parameters=expr("__context__.large"))
    if kind == "batch":
        step = batch("all", "[1..10]", inputMapping=[{"targetPath": "v", "value": expr("__context__.large")}])
    world = World(line(step), large)
    begun = [len(world.outside())]
    while "yield" in world.open:
        begun.append(len(world.done("yield").outside()))
    assert begun == [3, 6, 9, 10]
    earlier = World(line(step), large, revision=COUNTS_RESULTS - 1)
    assert len(earlier.outside()) == 10, "an earlier run goes on as it began"


def test_what_branches_are_given_is_handed_over_bit_by_bit() -> None:
    names = [f"call{number}" for number in range(5)]
    keys = [f"{name}#1" for name in names]
    calls = [action(name, parameters=expr("__context__.large")) for name in names]
    arrows = [arrow(f"{one} -> {other}") for name in names for one, other in (("s", name), (name, "j"))]
    definition = document(split("s"), *calls, join("j"), arrow("start -> s"), *arrows, arrow("j -> end"))
    world = World(definition, {"large": "x" * (7 * 1024 * 1024)})
    assert world.outside() == keys[:3]
    assert world.done("yield").outside() == keys


def test_a_run_that_is_being_undone_cannot_outgrow_what_it_passes_on() -> None:
    """It ends with its first error, and a retry knows what was lost then."""
    undone = action("done", compensate={"actionKey": "test.undo"})
    world = World(line(undone, action("call"))).done("done#1").failed("call#1")
    assert world.outside() == ["done#1/compensate"]
    world.changes_nothing(StateOutgrown(world.tick(), 70_000_000))


def test_what_has_waited_for_its_turn_is_handed_over_bit_by_bit() -> None:
    large = {"large": "x" * (7 * 1024 * 1024)}
    step = action("all", forEach=over("[1..10]"), parameters=expr("__context__.large"))
    world = World(line(step) | {"limits": {"parallelism": 5}}, large).done("yield").paused()
    for key in world.outside():
        world.done(key, 1)
    begun = [len(world.resumed().outside())]
    while "yield" in world.open:
        begun.append(len(world.done("yield").outside()))
    assert begun == [3, 5]
