"""Chunks of very many items, each interpreted by a run of its own."""

from typing import Any

from engine.interpreter import resume
from engine.state_json import state_from_json
from tests.documents import Document, batch, line
from tests.engine.world import World

TWICE = {"until": "__iteration__ = 1"}


def of_chunk(definition: Document, command: Any) -> World:
    """The world of the run of a chunk."""
    world = World(definition)
    world.open.clear()
    world.commands.clear()
    world._take(resume(world.plan, state_from_json(command.state), world.tick()))
    return world.done("yield")


def test_an_item_that_is_begun_again_in_another_chunk_goes_on_with_the_iteration_it_was_at() -> None:
    definition = line(batch("all", "[1..600]", concurrency=2, repeat=TWICE), onFailure="INCIDENT")
    world = World(definition)
    first = of_chunk(definition, world.command("all#1/batch/0"))
    first.done("all#1/item/0/round/0", "zero").failed("all#1/item/0/round/1", retryable=False)
    first.settle()
    world.done("all#1/batch/0", first.output).settle()
    world.resolve("all#1", "RETRY")
    again = of_chunk(definition, world.command("all#1/batch/0"))
    assert again.keys() == ["all#1/item/0/round/1"]
    again.done("all#1/item/0/round/1", "one")
    assert again.state.fans["all#1"].results[0] == ["zero", "one"]
