"""Events that answer nothing open: whatever comes, and however often, only what is awaited counts."""

from typing import Any

import pytest

from engine.events import (
    ActionDone,
    ActionFailed,
    ActionSuspended,
    ChildDone,
    ChildFailed,
    Event,
    HumanCompleted,
    IncidentResolved,
    StepResumed,
    TimerFired,
    TimerSkipped,
    Yielded,
)
from engine.protocol import Failure
from tests.documents import Document, action, arrow, child, confirm, delay, document, join, split, wait_signal
from tests.engine.world import World

LOST = Failure("LOST", "lost")


def busy() -> World:
    """A run that has one open step of each kind."""
    over = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}, "concurrency": 1}
    steps: list[Document] = [
        action("a"),
        action("each", forEach=over),
        action("again", repeat={"until": "__iteration__ = 3"}),
        child("kid", timeout=600, retry={"maxAttempts": 2}),
        confirm("ok", timeout=600),
        delay("d"),
        wait_signal("paid", timeout=600),
    ]
    arrows = [arrow("start -> s"), arrow("j -> end")]
    for one in steps:
        arrows += [arrow(f"s -> {one['id']}"), arrow(f"{one['id']} -> j")]
    return World(document(split("s"), join("j"), *steps, *arrows))


def strays(key: str, at: int) -> list[Event]:
    """Every answer there is, for one key."""
    return [
        ActionDone(key, at, 1),
        ActionFailed(key, at, LOST),
        ActionSuspended(key, at, 1),
        ChildDone(key, at, 1),
        ChildFailed(key, at, LOST),
        TimerFired(key, at),
        TimerSkipped(key, at),
        HumanCompleted(key, at, None),
        StepResumed(key, at, 1),
        IncidentResolved(key, at, "RETRY"),
        IncidentResolved(key, at, "COMPLETE"),
        IncidentResolved(key, at, "FAIL"),
    ]


@pytest.mark.parametrize("key", ["a#2", "a#1/item/0", "a#1/round/0", "each#1", "each#1/item/1", "each#1/item/7", "d#1",
                                 "again#1/round/1", "again#1", "paid#1", "nobody#1", "a#1/data/x", "a#1/compensate",
                                 "kid#1/retry", "a#1/timeout", "s#1", "start#1", "end#1"])  # fmt: skip
def test_answers_to_what_nobody_asked_change_nothing(key: str) -> None:
    world = busy()
    for event in strays(key, world.tick()):
        world.changes_nothing(event)


@pytest.mark.parametrize("ending", ["complete", "cancel"])
def test_nothing_changes_a_run_that_has_ended(ending: str) -> None:
    world = busy()
    if ending == "cancel":
        world.cancelled().settle()
    else:
        world.signal("paid")
        while world.ended is None:
            world.done(min(key for key in world.open if "/timeout" not in key))
    for key in ["a#1", "each#1/item/1", "kid#1", "ok#1", "d#1/delay", "paid#1/timeout"]:
        for event in strays(key, world.tick()):
            world.changes_nothing(event)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("a#1", TimerFired("a#1", 0)),
        ("a#1", HumanCompleted("a#1", 0)),
        ("ok#1", StepResumed("ok#1", 0)),
        ("ok#1", ActionDone("ok#1", 0, 1)),
        ("ok#1", ChildFailed("ok#1", 0, LOST)),
        ("paid#1", ActionDone("paid#1", 0, 1)),
        ("d#1", ActionDone("d#1", 0, 1)),
        ("kid#1", HumanCompleted("kid#1", 0)),
        ("kid#1", IncidentResolved("kid#1", 0, "FAIL")),
    ],
)
def test_an_answer_of_the_wrong_kind_changes_nothing(key: str, wrong: Any) -> None:
    world = busy()
    assert key in world.state.work
    world.changes_nothing(wrong)


def test_breath_that_nobody_asked_for_changes_nothing() -> None:
    world = busy()
    world.changes_nothing(Yielded(world.tick()))


def test_time_never_goes_backwards() -> None:
    world = busy()
    del world.open["a#1"]
    world.give(ActionDone("a#1", world.at - 5_000, 1))
    assert world.state.at == world.at
