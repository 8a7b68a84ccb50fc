"""Moving an open run to another version."""

from typing import Any

from engine.compile import compile_document
from engine.migration import findings, migrate, verdict
from engine.protocol import Complete
from tests.documents import action, arrow, child, confirm, document, expr, join, line, parallel, split
from tests.engine.world import World

Document = dict[str, Any]


def judged(world: World, definition: Document, **mapping: str) -> tuple[str, list[str]]:
    """The verdict, and the steps that stand in the way."""
    found = findings(world.plan, compile_document(definition), world.state, mapping)
    return verdict(found), [one.step_id for one in found]


def moved(world: World, definition: Document, **mapping: str) -> World:
    """The world of the run after it has moved; what was open outside stays open."""
    assert judged(world, definition, **mapping) == ("SAFE", [])
    new = compile_document(definition)
    step = migrate(world.plan, new, world.state, mapping, world.tick())
    world.plan = new
    world._take(step)
    if "yield" in world.open:
        world.done("yield")
    return world


def test_a_run_that_waits_for_a_person_goes_on_with_the_new_version_s_later_steps() -> None:
    world = World(line(confirm("person"), action("a")))
    moved(world, line(confirm("person"), action("b"), output=expr("__steps__.b")))
    assert world.done("person#1").done("b#1", 7).output == 7


def test_a_running_action_answers_to_the_same_step_of_the_new_version() -> None:
    world = World(line(action("a")))
    moved(world, line(action("a"), action("more")))
    assert world.done("a#1").keys() == ["more#1"]


def test_a_running_action_whose_step_is_gone_makes_it_impossible() -> None:
    world = World(line(action("a")))
    assert judged(world, line(action("b"))) == ("IMPOSSIBLE", ["a"])
    assert judged(world, line(action("b")), a="b") == ("IMPOSSIBLE", ["a"])


def test_a_person_s_step_that_is_gone_needs_a_mapping_and_is_asked_elsewhere_with_one() -> None:
    world = World(line(confirm("person")))
    new = line(confirm("other"))
    assert judged(world, new) == ("NEEDS_MAPPING", ["person"])
    assert judged(world, new, person="nowhere") == ("NEEDS_MAPPING", ["person"])
    moved(world, new, person="other")
    assert world.keys() == ["other#1"]
    assert isinstance(world.done("other#1").ended, Complete)


def test_a_step_of_another_kind_under_the_same_id_is_impossible_while_it_runs() -> None:
    world = World(line(child("sub")))
    assert judged(world, line(action("sub"))) == ("IMPOSSIBLE", ["sub"])


def test_tokens_that_wait_at_a_join_keep_their_places() -> None:
    world = World(parallel("a", "b")).done("a#1")
    new = parallel("a", "b")
    new["steps"].insert(1, action("after"))
    new["stepTransitions"] = [one for one in new["stepTransitions"] if one["id"] != "j-end"]
    new["stepTransitions"] += [arrow("j -> after"), arrow("after -> end")]
    moved(world, new)
    assert world.done("b#1").keys() == ["after#1"]


def test_a_join_that_has_lost_a_transition_with_a_token_is_impossible() -> None:
    world = World(parallel("a", "b")).done("a#1")
    assert judged(world, parallel("b", "c")) == ("IMPOSSIBLE", ["j"])


def test_a_new_branch_of_a_split_that_has_been_passed_would_be_waited_for_in_vain() -> None:
    world = World(parallel("a", "b")).done("a#1")
    assert judged(world, parallel("a", "b", "c")) == ("IMPOSSIBLE", ["j"])


def test_a_new_branch_of_a_split_that_is_still_ahead_is_begun() -> None:
    before = document(
        confirm("person"),
        *(one for one in parallel("a", "b")["steps"] if one["id"] not in ("start", "end")),
        *(one for one in parallel("a", "b")["stepTransitions"] if one["id"] != "start-s"),
        arrow("start -> person"),
        arrow("person -> s"),
    )
    after = document(
        confirm("person"),
        *(one for one in parallel("a", "b", "c")["steps"] if one["id"] not in ("start", "end")),
        *(one for one in parallel("a", "b", "c")["stepTransitions"] if one["id"] != "start-s"),
        arrow("start -> person"),
        arrow("person -> s"),
    )
    assert moved(World(before), after).done("person#1").keys() == ["a#1", "b#1", "c#1"]


def test_a_paused_or_gated_step_can_be_mapped() -> None:
    waiting = document(
        split("s"),
        action("one", mutex="m"),
        action("two", mutex="m"),
        join("j"),
        *(arrow(text) for text in ("start -> s", "s -> one", "s -> two", "one -> j", "two -> j", "j -> end")),
    )
    world = World(waiting)
    assert world.keys() == ["one#1"]
    new = document(
        split("s"),
        action("one", mutex="m"),
        action("three", mutex="m"),
        join("j"),
        *(arrow(text) for text in ("start -> s", "s -> one", "s -> three", "one -> j", "three -> j", "j -> end")),
    )
    moved(world, new, two="three")
    assert world.done("one#1").keys() == ["three#1"]
    assert isinstance(world.done("three#1").ended, Complete)


def test_a_step_is_mapped_to_one_of_its_kind_only() -> None:
    world = World(line(action("reserve"), confirm("person"))).done("reserve#1")
    assert judged(world, line(action("reserve"), confirm("other")), person="reserve") == ("IMPOSSIBLE", ["person"])
