"""Ending the whole execution from inside."""

from tests.documents import action, arrow, batch, child, confirm, delay, document, expr, line, split, terminate
from tests.engine.world import World


def ending(outcome: str, **fields: object) -> dict[str, object]:
    """A branch with open work of all kinds, and a person after whom everything ends."""
    kinds = [action("a"), child("c"), batch("b", "[1, 2]"), delay("d"), confirm("h", timeout=60)]
    parts = [split("s"), confirm("stop"), terminate("over", outcome, **fields), arrow("start -> s"), arrow("s -> stop")]
    for part in kinds:
        parts += [part, arrow(f"s -> {part['id']}"), arrow(f"{part['id']} -> end")]
    undo = {"actionKey": "test.undo", "parameters": 1}
    return document(
        action("first", compensate=undo),
        arrow("first -> s"),
        *parts[:3],
        *parts[4:],
        arrow("start -> first"),
        arrow("stop -> over"),
    )


def begun(outcome: str, **fields: object) -> World:
    return World(ending(outcome, **fields)).done("first#1").done("stop#1")


def test_completed_withdraws_what_is_open_and_waits_for_its_answers() -> None:
    world = begun("COMPLETED")
    assert world.withdrawn == {"a#1", "b#1/item/0", "b#1/item/1", "c#1"}
    assert world.ended is None
    assert world.settle().output == {}
    assert world.statuses()["h"] == world.statuses()["d"] == "CANCELLED"
    assert world.statuses()["over"] == "COMPLETED"


def test_failed_undoes_what_was_done() -> None:
    world = begun("FAILED", message=expr("'because ' & __context__.why", default="of nothing")).settle()
    assert world.keys() == ["first#1/compensate"]
    world.done("first#1/compensate")
    assert (world.failure.code, world.failure.message) == ("TERMINATED", "of nothing")


def test_cancelled_does_not_compensate() -> None:
    world = begun("CANCELLED", message="enough").settle()
    assert type(world.ended).__name__ == "Cancel"
    assert getattr(world.ended, "reason", None) == "enough"


def test_the_output_of_the_definition_is_given_when_it_ends_completed() -> None:
    world = World(line(terminate("over"), output={"n": expr("__context__.n")}), {"n": 1})
    assert world.output == {"n": 1}


def test_a_message_that_cannot_be_worked_out_fails_the_run() -> None:
    world = World(line(terminate("over", message=expr("__context__.missing"))))
    assert world.failure.step_id == "over"
    assert world.state.steps["over"].visits == 1


def test_an_output_that_cannot_be_worked_out_fails_the_run() -> None:
    world = World(line(terminate("over"), output=expr("__context__.missing")))
    assert world.failure.step_id == "over"
    assert world.state.steps["over"].visits == 1
