"""Which human step a completion means."""

import pytest

from engine.errors import EngineError
from engine.tasks import Answer, OpenTask, find_task
from tests.documents import arrow, confirm, document, join, line, put, split
from tests.engine.world import World


def twice_open() -> World:
    """A human step that two tokens have reached."""
    definition = document(
        split("s"),
        put("a", x=1),
        put("b", y=1),
        confirm("person"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> person"),
        arrow("b -> person"),
        arrow("person -> end"),
    )
    return World(definition)


def code_of(world: World, step_id: str, visit: int | None = None, outcome: str | None = None) -> str:
    with pytest.raises(EngineError) as refused:
        find_task(world.plan, world.state, step_id, visit, None, Answer(outcome))
    return refused.value.code


def test_the_open_visit_is_found() -> None:
    world = World(line(confirm("person", outcomes=["yes"])))
    assert find_task(world.plan, world.state, "person", None, None, Answer("yes")) == OpenTask(
        "person#1", "person", 1, open=True
    )


def test_where_several_visits_are_open_one_must_be_named() -> None:
    world = twice_open()
    assert code_of(world, "person") == "AMBIGUOUS"
    assert find_task(world.plan, world.state, "person", 2, None, Answer(None)).key == "person#2"
    world.done("person#2")
    assert find_task(world.plan, world.state, "person", None, None, Answer(None)).key == "person#1"


def test_each_completed_visit_keeps_its_own_answer() -> None:
    world = twice_open().done("person#2").done("person#1")
    for visit in (1, 2):
        task = find_task(world.plan, world.state, "person", visit, None, Answer(None))
        assert (task.key, task.open) == (f"person#{visit}", False)
    assert world.state.answers["person#1"] != world.state.answers["person#2"]


def test_a_completed_step_is_found_and_is_not_open() -> None:
    world = World(line(confirm("person"), confirm("then"))).done("person#1")
    assert not find_task(world.plan, world.state, "person", None, None, Answer("whatever")).open


def test_in_a_loop_the_open_visit_wins_over_the_completed_one() -> None:
    definition = document(
        join("again", "EXCLUSIVE"),
        confirm("person"),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> person"),
        arrow("person -> x"),
        arrow("x -> again", condition="true"),
        arrow("x -> end", isDefault=True),
    )
    world = World(definition).done("person#1")
    assert find_task(world.plan, world.state, "person", None, None, Answer(None)) == OpenTask(
        "person#2", "person", 2, open=True
    )


@pytest.mark.parametrize(
    ("step_id", "visit", "outcome", "code"),
    [
        ("nowhere", None, None, "STEP_NOT_FOUND"),
        ("start", None, None, "STEP_NOT_OPEN"),
        ("then", None, None, "STEP_NOT_OPEN"),
        ("person", 2, "yes", "STEP_NOT_OPEN"),
        ("person", None, None, "OUTCOME_UNKNOWN"),
        ("person", None, "maybe", "OUTCOME_UNKNOWN"),
    ],
)
def test_what_does_not_fit_is_refused(step_id: str, visit: int | None, outcome: str | None, code: str) -> None:
    world = World(line(confirm("person", outcomes=["yes"]), confirm("then")))
    assert code_of(world, step_id, visit, outcome) == code


def test_nothing_is_open_in_a_run_that_has_ended() -> None:
    world = World(line(confirm("person"))).cancelled()
    assert code_of(world, "person") == "EXECUTION_ENDED"
