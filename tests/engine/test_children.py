"""Child executions: one, or one for each item of a list."""

from typing import Any

import pytest

from engine.protocol import SpawnChildren, StartTimer
from tests.documents import (
    batch,
    child,
    expr,
    line,
)
from tests.engine.world import World


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


def test_each_attempt_of_a_child_has_its_own_timeout() -> None:
    definition = line(child("sub", timeout=10, retry={"maxAttempts": 2, "initialInterval": 1}))
    world = World(definition).failed("sub#1")
    assert "sub#1/timeout" not in world.open
    world.done("sub#1/retry")
    timer = world.open["sub#1/timeout"]
    assert isinstance(timer, StartTimer)
    assert timer.due == world.at + 10_000
    assert world.done("sub#1", {"n": 1}).output == {}


def test_a_child_that_takes_too_long_is_withdrawn_and_tried_again_when_it_has_answered() -> None:
    world = World(line(child("sub", timeout=10, retry={"maxAttempts": 2})))
    world.done("sub#1/timeout")
    assert world.withdrawn == {"sub#1"}
    assert world.ended is None
    world.failed("sub#1", "CANCELLED", retryable=False).done("sub#1/retry")
    command = world.open["sub#1"]
    assert isinstance(command, SpawnChildren)
    assert command.attempt == 2
    world.done("sub#1/timeout")
    assert world.failed("sub#1", "CANCELLED", retryable=False).failure.code == "STEP_TIMED_OUT"


def test_a_child_that_completes_while_it_is_withdrawn_has_completed() -> None:
    world = World(line(child("sub", timeout=10), output=expr("__steps__.sub.n")))
    assert world.done("sub#1/timeout").done("sub#1", {"n": 1}).output == 1


def test_an_item_that_is_tried_again_keeps_its_name_and_its_own_timeout() -> None:
    world = World(line(batch("all", "[1, 2]", timeout=10, retry={"maxAttempts": 2})))
    world.failed("all#1/item/1").done("all#1/item/1/retry")
    command = world.open["all#1/item/1"]
    assert isinstance(command, SpawnChildren)
    assert command.children[0].name == "all 2/2"
    assert "all#1/item/0/timeout" in world.open
    assert world.done("all#1/item/1", "b").done("all#1/item/0", "a").output == {}


def test_a_batch_over_too_many_items_fails_with_a_code() -> None:
    refused = batch("all", "$append([1..10000], 1)", completionCondition="$count(__results__) > 3")
    assert World(line(refused)).failure.code == "BATCH_TOO_LARGE"


def test_the_chunks_of_a_batch_share_its_concurrency_out() -> None:
    world = World(line(batch("all", "[1..600]", concurrency=40)))
    chunks: Any = [world.open[key] for key in sorted(world.open)]
    assert [chunk.place for chunk in chunks] == ["1-300 of 600", "301-600 of 600"]
    assert [chunk.state["fans"]["all#1"]["window"] for chunk in chunks] == [20, 20]
