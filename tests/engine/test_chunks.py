"""Chunks of a step over very many items that are withdrawn: what they have come to is not lost."""

from typing import Any

from engine.events import ChunkWithdrawn
from engine.interpreter import resume
from engine.protocol import Complete, Fail, SpawnBatch, TellChildren
from engine.repair import retry_failed
from engine.state_json import state_from_json
from tests.documents import batch, line
from tests.engine.world import World

UNDO = {"key": "x#1/compensate", "step_id": "x", "step_name": "X", "action_key": "test.undo", "parameters": None,
        "retry": {}, "timeout": 10, "idempotency_key": "child/x#1/compensate", "owner": "child"}  # fmt: skip


def chunk_of(world: World, key: str) -> World:
    """The world of the run of a chunk."""
    command: Any = world.open[key]
    assert isinstance(command, SpawnBatch)
    inner = World.__new__(World)
    inner.plan, inner.open, inner.history, inner.ended = world.plan, {}, [], None
    inner.withdrawn, inner.keyed, inner.at, inner.commands = set(), {}, world.at, []
    inner._take(resume(world.plan, state_from_json(command.state), world.tick()))
    return inner.done("yield")


def withdrawn(inner: World, **fields: Any) -> World:
    return inner.give(ChunkWithdrawn(inner.tick(), **fields))


def many(**fields: Any) -> dict[str, Any]:
    return batch("all", "[1..600]", concurrency=4, **fields)


def report_of(inner: World) -> Any:
    assert isinstance(inner.ended, Complete)
    return inner.ended.output


def test_a_chunk_that_is_withdrawn_ends_with_what_its_items_have_come_to() -> None:
    inner = chunk_of(World(line(many())), "all#1/batch/0")
    assert inner.keys() == ["all#1/item/0", "all#1/item/1"]
    inner.done("all#1/item/0", "x", compensations=[UNDO])
    withdrawn(inner)
    assert inner.ended is None, "running children are awaited"
    inner.done("all#1/item/1", "late").settle()
    output = report_of(inner)
    assert output["results"] == {"0": "x", "1": "late"}
    assert output["withdrawn"] is True
    assert len(inner.state.undo) == 1


def test_an_iteration_that_ends_well_while_its_chunk_is_withdrawn_is_not_done_again() -> None:
    inner = withdrawn(chunk_of(World(line(many(repeat={"until": "__iteration__ = 1"}))), "all#1/batch/0"))
    inner.done("all#1/item/0/round/0", "first").settle()
    output = report_of(inner)
    assert output["results"] == {}
    assert output["left"]["0"]["round"] == 1
    assert output["left"]["0"]["results"] == ["first"]


def test_children_of_a_withdrawn_chunk_are_told_when_nothing_is_to_be_undone() -> None:
    inner = withdrawn(chunk_of(World(line(many())), "all#1/batch/0"), compensate=False)
    assert [one.what for one in inner.said(TellChildren)] == ["LEAVE_DONE"]


def test_what_a_withdrawn_chunk_did_is_undone_by_the_run_and_kept_for_a_retry() -> None:
    world = World(line(many())).cancelled(compensate=False)
    answer = {"results": {"0": "x"}, "errors": {}, "tries": {}, "withdrawn": True}
    world.done("all#1/batch/0", answer, compensations=[UNDO]).settle()
    assert [undo.action_key for undo in world.state.undo.values()] == ["test.undo"]
    state = retry_failed(world.plan, world.state, world.tick())
    fan = state.fans["all#1"]
    assert fan.results[0] == "x"
    assert 0 not in fan.again
    assert 1 in fan.again


def test_children_that_a_withdrawn_chunk_had_begun_are_others_when_the_run_is_retried() -> None:
    world = World(line(many())).cancelled(compensate=False)
    answer = {"results": {"0": "x"}, "errors": {}, "tries": {"1": 1}, "withdrawn": True}
    world.done("all#1/batch/0", answer).settle()
    fan = retry_failed(world.plan, world.state, world.tick()).fans["all#1"]
    assert fan.tries.get(1, 0) > 0, "the child of the first attempt has been, and its id is taken"
    assert fan.tries.get(300, 0) > 0


def test_what_a_withdrawn_chunk_did_is_undone_when_the_run_fails() -> None:
    world = World(line(many()))
    world.failed("all#1/batch/0")
    answer = {"results": {"300": "x"}, "errors": {}, "tries": {}, "withdrawn": True}
    world.done("all#1/batch/300", answer, compensations=[UNDO])
    assert world.keys() == ["all#1/compensate/0"]
    world.done("all#1/compensate/0")
    assert isinstance(world.ended, Fail)


def test_a_parked_step_keeps_what_its_withdrawn_chunks_had_done() -> None:
    world = World(line(many(onFailure="INCIDENT")))
    world.failed("all#1/batch/0")
    world.resolve("all#1", "RETRY")
    answer = {"results": {"300": "x"}, "errors": {}, "tries": {}, "withdrawn": True}
    world.done("all#1/batch/300", answer)
    assert world.state.fans["all#1"].results[300] == "x"
    assert world.keys(SpawnBatch) == ["all#1/batch/0", "all#1/batch/301"]


def test_a_chunk_that_somebody_else_cancelled_fails_its_step_and_loses_nothing() -> None:
    world = World(line(many(onFailure="INCIDENT")))
    answer = {"results": {"0": "x"}, "errors": {}, "tries": {}, "withdrawn": True}
    world.done("all#1/batch/0", answer)
    failure = world.state.work["all#1"].failure
    assert failure is not None
    assert failure.code == "CANCELLED"
    assert world.state.fans["all#1"].results[0] == "x"


def test_an_output_of_an_earlier_revision_leaves_nothing_when_its_chunk_was_withdrawn() -> None:
    world = World(line(many(onFailure="INCIDENT")))
    world.failed("all#1/batch/0")
    world.done("all#1/batch/300", {"results": {"300": "x"}, "errors": {}, "tries": {}})
    assert 300 not in world.state.fans["all#1"].results
